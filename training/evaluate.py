"""Judge a trained model on crops of held-out photos, beside bicubic.

    python -m training.evaluate --model FOLDER --kind blind --per-photo 1
    python -m training.evaluate --model FOLDER --steps 8 --guidance 2 --sheet sheet.png

Prints means over the crops. The set's crops are 192 px, from whole photos that were never trained
on; see ``training.evaluation_set``.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from runtime.images.resizing import resize
from runtime.load import load_full_precision
from runtime.pipeline import Pipeline, Prompts
from runtime.prompts.named import NAMED_PROMPTS
from runtime.sampling.settings import UpscaleSettings
from runtime.upscale import encode_image, sample_latent, upscale
from training.evaluation_set import KINDS, Case, evaluation_set, spread
from training.metrics import measure, upper_octave_power
from training.photos.gather import default_cache
from training.prompts import NAMES


def with_prompts(pipeline: Pipeline, model: Path, positive: str, negative: str) -> Pipeline:
    """``pipeline`` with two of the model's named prompts."""
    tensors = load_file(model / NAMED_PROMPTS)
    prompts = Prompts(
        tensors[f"{positive}.embeds"],
        tensors[f"{positive}.pooled"],
        tensors[f"{negative}.embeds"],
        tensors[f"{negative}.pooled"],
    )
    return replace(pipeline, prompts=prompts.to(pipeline.device, pipeline.dtype))


def without_text(pipeline: Pipeline) -> Pipeline:
    """``pipeline`` with the text stream's input zeroed, for measuring what it carries."""
    prompts = pipeline.prompts
    zeros = torch.zeros_like(prompts.positive_embeds)
    return replace(pipeline, prompts=replace(prompts, positive_embeds=zeros, negative_embeds=zeros))


def latent_fidelity_db(
    first: Pipeline, second: Pipeline, cases: Sequence[Case], settings: UpscaleSettings
) -> float:
    """How near the final latents of ``second`` are to those of ``first``, mean over crops in dB."""
    found = []
    for index, case in enumerate(cases):
        seeded = replace(settings, seed=index)
        control = encode_image(first, case.small, seeded).control
        wanted, other = (sample_latent(p, control, seeded) for p in (first, second))
        error = (wanted - other).square().sum()
        found.append(10 * float(torch.log10(wanted.square().sum() / error)))
    return float(np.mean(found))


def enlarge(pipeline: Pipeline, cases: Sequence[Case], settings: UpscaleSettings) -> list[Tensor]:
    """Every crop upscaled, [1, 3, H, W] in 0 ... 1; crop i starts from noise i."""
    return [
        upscale(pipeline, case.small, replace(settings, seed=index)).clamp(0, 1)
        for index, case in enumerate(cases)
    ]


def means(results: Sequence[Tensor], cases: Sequence[Case]) -> dict[str, float]:
    """Mean of every measure over the crops [1, 3, H, W].

    Of the ratio of upper-octave powers there are two: of the sums over all crops, which strongly
    textured crops decide, and the median.
    """
    pairs = [(r[0].numpy(), c.truth[0].numpy()) for r, c in zip(results, cases, strict=True)]
    rows = [measure(result, truth) for result, truth in pairs]
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    powers = np.array([[upper_octave_power(picture) for picture in pair] for pair in pairs])
    found["upper_octave"] = float(powers[:, 0].sum() / powers[:, 1].sum())
    found["upper_octave_median"] = float(np.median(powers[:, 0] / powers[:, 1]))
    return found


def write_sheet(rows: Sequence[Sequence[Tensor]], file: Path) -> None:
    """Pictures [1, 3, H, W] side by side, a case a row."""
    sheet = torch.cat([torch.cat(list(row), dim=3) for row in rows], dim=2)[0]
    pixels = np.uint8(np.rint(sheet.clamp(0, 1).permute(1, 2, 0).numpy() * 255))
    Image.fromarray(pixels).save(file)


def main() -> None:
    """Evaluate as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photos", type=Path, default=default_cache())
    parser.add_argument("--kind", choices=KINDS, default="blind")
    parser.add_argument("--per-photo", type=int, default=4)
    parser.add_argument("--limit", type=int, help="only so many crops, spread over all photos")
    parser.add_argument("--steps", type=int, help="instead of the model's default")
    parser.add_argument("--guidance", type=float, help="instead of the model's default")
    parser.add_argument("--color-fix", choices=("adain", "wavelet", "none"))
    parser.add_argument("--positive", choices=NAMES, help="instead of the model's default")
    parser.add_argument("--negative", choices=NAMES, help="instead of the model's default")
    parser.add_argument(
        "--zero-text",
        action="store_true",
        help="zero the prompts' tokens; also prints how near\nthe final latents stay",
    )
    parser.add_argument("--out", type=Path, help="JSON file for the means")
    parser.add_argument("--sheet", type=Path, help="PNG of bicubic, result, truth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    pipeline = load_full_precision(arguments.model, device=arguments.device, dtype=torch.float32)
    if arguments.positive or arguments.negative:
        pipeline = with_prompts(
            pipeline,
            arguments.model,
            arguments.positive or "natural",
            arguments.negative or "low quality",
        )
    with_text = pipeline
    if arguments.zero_text:
        pipeline = without_text(pipeline)
    settings = pipeline.sampling.override(
        patch_size=pipeline.patch_size,
        steps=arguments.steps,
        guidance=arguments.guidance,
        color_fix=arguments.color_fix,
    )
    cases = evaluation_set(arguments.photos, arguments.kind, per_photo=arguments.per_photo)
    if arguments.limit:
        cases = spread(cases, arguments.limit)
    bicubic = [resize(case.small, case.truth.shape[-2:]) for case in cases]
    results = enlarge(pipeline, cases, settings)
    summary = {
        "crops": len(cases),
        "kind": arguments.kind,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "bicubic": means(bicubic, cases),
        "model": means(results, cases),
    }
    if arguments.zero_text:
        summary["latent_db"] = latent_fidelity_db(with_text, pipeline, cases, settings)
    print(json.dumps(summary, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n")
    if arguments.sheet:
        rows = zip(bicubic, results, [case.truth for case in cases], strict=True)
        write_sheet(list(rows), arguments.sheet)


if __name__ == "__main__":
    main()
