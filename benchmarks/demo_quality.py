"""How well the bundled model enlarges photos it never saw, quantized and not.

    python -m benchmarks.demo_quality --pack out/demo/model.qpack --out docs/results

Crops of the held-out photos (astronaut, chelsea, coffee) are degraded with fixed seeds and enlarged
four times: by bicubic interpolation, by the unquantized network, by the pack. Against the truth:
PSNR in dB and FSIM (structure; from pyiqa, extra ``eval``). Against the unquantized network's
result from the same noise: PSNR in dB, how much quantization changed. The autoencoder's own loss is
measured on the whole photos. Writes a JSON file and a contact sheet.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from artifacts.pack.reader import open_pack
from benchmarks.cases import Case, contact_sheet, psnr_db, to_tensor
from benchmarks.degradation import SCALE, Degradation
from benchmarks.photos import held_out_photos
from runtime.images.resizing import resize
from runtime.load import load_full_precision, load_pack
from runtime.pipeline import Pipeline
from runtime.sampling.settings import UpscaleSettings
from runtime.upscale import upscale

MODEL = Path("artifacts/demo/dit4sr-mini")
CROPS_PER_PHOTO = 5
CROP_PX = 192
SEED = 2026
SHEET_ROWS = 6


def make_cases() -> list[Case]:
    """The crops, the same every time."""
    rng = np.random.default_rng(SEED)
    cases = []
    for name, photo in held_out_photos().items():
        for index in range(CROPS_PER_PHOTO):
            top, left = (rng.integers(side - CROP_PX + 1) for side in photo.shape[:2])
            truth = photo[top : top + CROP_PX, left : left + CROP_PX]
            small = Degradation.draw(rng).apply(truth)
            cases.append(Case(f"{name}-{index}", to_tensor(truth), to_tensor(small)))
    return cases


@torch.inference_mode()
def autoencoder_psnr_db(pipeline: Pipeline) -> dict[str, float]:
    """PSNR of every held-out photo after encoding and decoding: no upscale can get past it."""
    unit = pipeline.vae_factor * pipeline.patch_size
    found = {}
    for name, photo in held_out_photos().items():
        height, width = (side - side % unit for side in photo.shape[:2])
        image = to_tensor(photo[:height, :width])
        latent = pipeline.vae.encode(image * 2 - 1).latent_dist.mode()
        decoded = (pipeline.vae.decode(latent).sample + 1) / 2
        found[name] = psnr_db(decoded.clamp(0, 1), image)
    return found


def _settings(pipeline: Pipeline, arguments: argparse.Namespace) -> UpscaleSettings:
    return pipeline.sampling.override(
        patch_size=pipeline.patch_size, steps=arguments.steps, guidance=arguments.guidance
    )


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pack", type=Path, help="without it only the unquantized network runs")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, help="instead of the model's default")
    parser.add_argument("--guidance", type=float, help="instead of the model's default")
    parser.add_argument("--out", type=Path, help="folder for the results; printed only without")
    arguments = parser.parse_args()

    import pyiqa  # noqa: PLC0415  (an extra)

    fsim = pyiqa.create_metric("fsim", device=torch.device("cpu"))
    cpu = torch.device("cpu")
    pipelines = {
        "full precision": load_full_precision(arguments.model, device=cpu, dtype=torch.float32)
    }
    if arguments.pack:
        pipelines["pack"] = load_pack(arguments.pack, device=cpu, dtype=torch.float32)

    rows, pictures = [], []
    for index, case in enumerate(make_cases()):
        results = {"bicubic": resize(case.small, case.truth.shape[-2:]).clamp(0, 1)}
        for method, pipeline in pipelines.items():
            settings = replace(_settings(pipeline, arguments), seed=index)
            results[method] = upscale(pipeline, case.small, settings).clamp(0, 1)
        row: dict[str, object] = {"crop": case.name}
        for method, result in results.items():
            row[method] = {
                "psnr_db": psnr_db(result, case.truth),
                "fsim": float(fsim(result, case.truth)),
            }
        if "pack" in results:
            row["pack_to_full_db"] = psnr_db(results["pack"], results["full precision"])
        rows.append(row)
        print(json.dumps(row), flush=True)
        nearest = torch.nn.functional.interpolate(case.small, scale_factor=SCALE, mode="nearest")
        pictures.append([nearest, *results.values(), case.truth])

    means = {
        method: {
            metric: float(np.mean([row[method][metric] for row in rows]))  # type: ignore[index]
            for metric in ("psnr_db", "fsim")
        }
        for method in results
    }
    settings = _settings(pipelines["full precision"], arguments)
    summary = {
        "crops": len(rows),
        "crop_px": CROP_PX,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "means": means,
        "autoencoder_psnr_db": autoencoder_psnr_db(pipelines["full precision"]),
    }
    if arguments.pack:
        summary["pack_to_full_db"] = float(np.mean([row["pack_to_full_db"] for row in rows]))
    print(json.dumps(summary, indent=2))
    if arguments.out:
        _write(arguments, summary, rows, pictures)


def _write(
    arguments: argparse.Namespace,
    summary: dict[str, object],
    rows: list[dict[str, object]],
    pictures: list[list[Tensor]],
) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    content = {**summary, "rows": rows}
    (out / "demo_quality.json").write_text(json.dumps(content, indent=2) + "\n")
    labels = ["input", "bicubic", "full precision", "truth"]
    if arguments.pack:
        target = open_pack(arguments.pack).manifest.target
        labels.insert(-1, f"W{target.weight_bits}A{target.activation_bits}")
    step = max(len(pictures) // SHEET_ROWS, 1)
    contact_sheet(pictures[::step][:SHEET_ROWS], labels).save(out / "contact_sheet.png")


if __name__ == "__main__":
    main()
