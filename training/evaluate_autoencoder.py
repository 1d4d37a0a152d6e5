"""What an autoencoder alone gives back of the held-out photos: no upscale can get past that.

python -m training.evaluate_autoencoder --vae training/autoencoder_weights
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from training.crops import to_batch
from training.metrics import colour_difference, psnr_db
from training.photos.gather import default_cache
from training.photos.library import held_out_photos

CROP_PX = 256


@torch.inference_mode()
def main() -> None:
    """Print the mean over the centres of all held-out photos."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="the autoencoder's folder")
    parser.add_argument("--photos", type=Path, default=default_cache(), help="gathered photos")
    arguments = parser.parse_args()
    if not (arguments.vae / "config.json").is_file():
        # diffusers would ask the hub for a model of that name.
        parser.error(f"{arguments.vae} is no autoencoder's folder: it has no config.json")
    vae = AutoencoderKL.from_pretrained(arguments.vae).float().eval()
    rows = []
    for name, photo in held_out_photos(arguments.photos).items():
        top, left = ((side - CROP_PX) // 2 for side in photo.shape[:2])
        images = to_batch([photo[top : top + CROP_PX, left : left + CROP_PX]])
        decoded = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        result, truth = (((x[0] + 1) / 2).float().numpy() for x in (decoded, images))
        rows.append((psnr_db(result, truth), colour_difference(result, truth)))
        print(f"{name}: {rows[-1][0]:.2f} dB, CIEDE2000 {rows[-1][1]:.2f}")
    mean = np.mean(rows, axis=0)
    print(f"{len(rows)} photos: {mean[0]:.2f} dB, CIEDE2000 {mean[1]:.2f}")


if __name__ == "__main__":
    main()
