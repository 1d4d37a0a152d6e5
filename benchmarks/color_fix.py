"""Which colour correction keeps the input's colours: the figures behind the default.

    python -m training.photos
    python -m benchmarks.color_fix --out docs/results

Whole photos, shrunk to a long side of 384 px, are shrunk by four again, once by bicubic
interpolation alone and once with blur, noise and JPEG, and enlarged by the unquantized network. The
latent is sampled once for each input; only the correction differs. Measured in CIEDE2000, mean over
the pixels:

- to the input: the result, averaged over 4 x 4 px, against the input it was made from;
- to the truth: the same average of the photo, for what degradation changed.

And PSNR to the photo, in dB. Intervals are 95 % bootstrap over photos.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import psnr_db, to_tensor
from benchmarks.degradation import SCALE, Degradation
from benchmarks.degradation import resize as shrink
from benchmarks.photos import Image
from runtime.evaluation.statistics import mean_interval
from runtime.images.color import correct_color
from runtime.images.resizing import resize
from runtime.load import load_full_precision
from runtime.pipeline import Pipeline
from runtime.sampling.autoencoder import decode
from runtime.sampling.settings import COLOR_FIXES
from runtime.upscale import encode_image, sample_latent
from training.photos.gather import default_cache
from training.photos.library import held_out_photos

MODEL = Path("artifacts/demo/dit4sr-mini")
PHOTOS = 20
LONG_SIDE_PX = 384
SEED = 2026
INPUTS = ("clean", "degraded")
METRICS = {
    "to_input": "CIEDE2000 to the input",
    "to_truth": "CIEDE2000 to the truth",
    "psnr_db": "PSNR to the truth, dB",
}


@dataclass(frozen=True)
class Case:
    """One photo.

    Attributes:
        name: its key.
        truth: [H, W, 3], 0 ... 1.
        inputs: kind of `INPUTS` -> [H / 4, W / 4, 3].
    """

    name: str
    truth: Image
    inputs: dict[str, Image]


def make_cases(cache: Path, count: int) -> list[Case]:
    """The photos, by name, the same every time: spread over all that are held out."""
    photos = sorted(held_out_photos(cache).items())
    chosen = [photos[index * len(photos) // count] for index in range(count)]
    cases = []
    for index, (name, photo) in enumerate(chosen):
        scale = LONG_SIDE_PX / max(photo.shape[:2])
        height, width = (int(side * scale) // SCALE * SCALE for side in photo.shape[:2])
        truth = shrink(np.asarray(photo, np.float32) / 255, height, width)
        small = shrink(truth, height // SCALE, width // SCALE)
        degraded = Degradation.draw(np.random.default_rng((SEED, index))).apply(truth)
        eight_bits = (small * 255).round() / 255
        cases.append(Case(name, truth, {"clean": eight_bits, "degraded": degraded}))
    return cases


def color_difference(image: Image, reference: Image) -> float:
    """Mean CIEDE2000 of two images [H, W, 3], sRGB, 0 ... 1."""
    from skimage import color  # noqa: PLC0415  (an extra)

    return float(color.deltaE_ciede2000(color.rgb2lab(image), color.rgb2lab(reference)).mean())


def averaged(image: Image) -> Image:
    """Mean over blocks of 4 x 4 px."""
    height, width, channels = image.shape
    blocks = image.reshape(height // SCALE, SCALE, width // SCALE, SCALE, channels)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


@torch.inference_mode()
def results(pipeline: Pipeline, small: Image) -> dict[str, Image]:
    """The enlarged picture with every correction, of one latent."""
    settings = replace(pipeline.sampling, seed=SEED)
    encoded = encode_image(pipeline, to_tensor(small), settings)
    latent = sample_latent(pipeline, encoded.control, settings)
    enlarged = encoded.enlarged
    decoded = decode(pipeline, latent)[..., : enlarged.shape[-2], : enlarged.shape[-1]]
    return {
        fix: _to_image(resize(correct_color(decoded, enlarged, fix), encoded.target))
        for fix in COLOR_FIXES
    }


def measure(pipeline: Pipeline, case: Case, kind: str) -> dict[str, dict[str, float]]:
    """Correction -> metric -> value, for one input."""
    small = case.inputs[kind]
    true_average = averaged(case.truth)
    return {
        fix: {
            "to_input": color_difference(averaged(result), small),
            "to_truth": color_difference(averaged(result), true_average),
            "psnr_db": psnr_db(to_tensor(result), to_tensor(case.truth)),
        }
        for fix, result in results(pipeline, small).items()
    }


def render(rows: list[dict[str, object]], model: str) -> str:
    """The page of results."""
    head = " | ".join(METRICS.values())
    lines = [
        "# Which colour correction keeps the input's colours",
        "",
        "```",
        "python -m training.photos",
        "python -m benchmarks.color_fix --out docs/results",
        "```",
        "",
        f"{len(rows)} whole photos that the network never saw, long side {LONG_SIDE_PX} px,",
        f"enlarged four times by the unquantized `{model}`; each input sampled once, then",
        "corrected in every way. *Clean* inputs are bicubically shrunk; *degraded* ones also",
        "blurred, noisy and JPEG-compressed. CIEDE2000 is the mean over the pixels after averaging",
        "over 4 x 4 px; lower is closer. Means over photos, with 95 % bootstrap intervals.",
        "",
        f"| input | correction | {head} |",
        "|---|---|---|---|---|",
    ]
    for kind in INPUTS:
        for fix in COLOR_FIXES:
            found = [_shown(_values(rows, kind, fix, metric)) for metric in METRICS]
            lines.append(f"| {kind} | `{fix}` | {' | '.join(found)} |")
    lines += [
        "",
        "`adain` less `wavelet`, photo by photo:",
        "",
        f"| input | {head} |",
        "|---|---|---|---|",
    ]
    for kind in INPUTS:
        found = [
            _shown(_values(rows, kind, "adain", metric) - _values(rows, kind, "wavelet", metric))
            for metric in METRICS
        ]
        lines.append(f"| {kind} | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


def _values(rows: list[dict[str, object]], kind: str, fix: str, metric: str) -> np.ndarray:
    return np.array([row[kind][fix][metric] for row in rows])  # type: ignore[index]


def _shown(values: np.ndarray) -> str:
    found = mean_interval(values)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _to_image(rgb: Tensor) -> Image:
    return rgb[0].permute(1, 2, 0).numpy()


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--photos", type=Path, default=default_cache(), help="gathered photos")
    parser.add_argument("--count", type=int, default=PHOTOS)
    parser.add_argument("--out", type=Path, help="folder for the results; printed only without")
    arguments = parser.parse_args()
    pipeline = load_full_precision(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    rows: list[dict[str, object]] = []
    for case in make_cases(arguments.photos, arguments.count):
        row: dict[str, object] = {"photo": case.name}
        row |= {kind: measure(pipeline, case, kind) for kind in INPUTS}
        rows.append(row)
        print(json.dumps(row), flush=True)
    page = render(rows, arguments.model.name)
    print(page)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "color_fix.md").write_text(page)
        (arguments.out / "color_fix.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
