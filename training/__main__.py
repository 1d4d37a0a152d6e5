"""Train ``dit4sr-mini`` and write it as a diffusers folder.

    python -m training --out out/train                 # both stages, then the folder
    python -m training --out out/train --stage vae     # one stage at a time

Stopped runs continue where they were. The bundled model was made by the defaults of this file, on
two CPU cores; the steps, crops and seeds are all here.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import save_file

from artifacts.dit4sr.layout import POSITION_TABLE
from runtime.dit4sr.network import DiT4SR
from schemas.json_io import dump_json
from schemas.manifest import SamplingDefaults
from training.degradation import Degradation
from training.loop import Crops
from training.network import CONFIG, SHIFT, Phase, embeddings, train_network
from training.photos import held_out_photos
from training.vae import VaePhase, train_vae

SEED = 0
LEAVES = 120
VAE_PHASES = [
    VaePhase(steps=2400, learning_rate=1e-3, kl_weight=1e-5, gradient_weight=0.5),
    VaePhase(steps=1200, learning_rate=8e-4, kl_weight=1e-7, gradient_weight=0.5),
    VaePhase(steps=1100, learning_rate=1e-3, kl_weight=0.0, gradient_weight=0.25),
]
PHASES = [
    Phase(crop_px=64, batch=16, steps=2400, cached_crops=4000),
    Phase(crop_px=128, batch=6, steps=1200, cached_crops=1600),
]
SAMPLING = SamplingDefaults(
    steps=4,
    guidance=1.0,
    shift=SHIFT,
    tile_latent=32,
    overlap_latent=8,
    min_side_px=128,
)
"""Found with `benchmarks/demo_quality.py`: more steps or guidance sharpen at the cost of PSNR."""

MODEL_CARD = """# dit4sr-mini

A network of DiT4SR's architecture, a hundredth of its size (hidden width 192, 6 blocks), trained
from scratch with `python -m training` on photos that scikit-image and scikit-learn ship and on
generated dead-leaves pictures. It exists to try, test and compare quantization with real weights
where DiT4SR's own cannot be had. It enlarges photos four times and was never trained on the photos
astronaut, chelsea and coffee.

Apache-2.0, like the project.
"""


def write_folder(network: DiT4SR, vae: AutoencoderKL, folder: Path) -> None:
    """Write the model as a diffusers folder in bfloat16, with prompts and sampling defaults."""
    shutil.rmtree(folder, ignore_errors=True)
    transformer = folder / "transformer"
    transformer.mkdir(parents=True)
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in network.state_dict().items()
        if name != POSITION_TABLE  # rebuilt at load
    }
    save_file(weights, transformer / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "DiT4SR", **CONFIG.model_dump(mode="json")}
    (transformer / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(folder / "scheduler")
    prompts = {name: tensor.to(torch.bfloat16) for name, tensor in embeddings(SEED).items()}
    save_file(prompts, folder / "prompts.safetensors")
    (folder / "sampling.json").write_bytes(dump_json(SAMPLING))
    (folder / "README.md").write_text(MODEL_CARD)


def write_photo(file: Path) -> None:
    """Write the demo's input: a degraded crop of a held-out photo, 96 x 72 px."""
    truth = held_out_photos()["chelsea"][6:294, 40:424]
    small = Degradation.draw(np.random.default_rng(SEED)).apply(truth)
    Image.fromarray(np.uint8(np.rint(small * 255))).save(file)


def main() -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/train"), help="working folder")
    parser.add_argument("--stage", choices=("vae", "network", "all"), default="all")
    parser.add_argument(
        "--folder", type=Path, default=Path("artifacts/demo/dit4sr-mini"), help="finished model"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out

    crops = Crops(SEED, LEAVES)
    if arguments.stage in ("vae", "all"):
        train_vae(crops, out, phases=VAE_PHASES, seed=SEED)
    if arguments.stage in ("network", "all"):
        vae = AutoencoderKL.from_pretrained(out / "vae").eval().requires_grad_(False)
        network = train_network(vae, crops, out, phases=PHASES, seed=SEED)
        write_folder(network, vae, arguments.folder)
        write_photo(arguments.folder.parent / "photo.png")


if __name__ == "__main__":
    main()
