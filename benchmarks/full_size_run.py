"""A full-size pack from end to end on this machine, from building it to an upscale and a probe.

    python -m benchmarks.full_size_run --work out/full --json docs/results/full_size_run.json
    python -m benchmarks.full_size_run --parts upscale --json docs/results/full_size_run.json

Weights, autoencoder and prompts are random numbers in the shapes of DiT4SR and Stable Diffusion 3.5
medium: the picture says nothing, time and memory do. Every part runs as a process of its own, and
the operating system's account of it is printed: wall and processor seconds, peak memory. The
upscale takes a picture of 128x128 px to 512x512 px, one tile, with 2 steps and guidance: two passes
of the network, each with both guidance branches. Calibration sees the same picture and steps; the
probe a crop of 32x32 px, 128 px enlarged, with one cotangent: five passes for each of the two
steps. With ``--parts`` the others keep what the JSON file has of them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import save_file

from artifacts.checkpoint.sampling_defaults import SAMPLING_FILE
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from benchmarks.full_size_build import QPLAN, build, random_checkpoint, run
from benchmarks.photos import held_out_photos
from runtime.bench.machine import machine_facts
from runtime.images.resizing import SCALE

PARTS = ("build", "verify", "load", "upscale", "calibrate", "probe")
STEPS, GUIDANCE = 2, 2.0
TEXT_TOKENS = 333
SEED = 0
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
}
"""Stable Diffusion 3.5's autoencoder, 84 million parameters."""
ONE_LOAD = """
import json, sys, time
from pathlib import Path
from runtime.loader import load_pipeline
began = time.perf_counter(), time.process_time()
pipeline = load_pipeline(pack=Path(sys.argv[1]), device="cpu")
print(json.dumps({"load_wall_s": time.perf_counter() - began[0],
                  "load_processor_s": time.process_time() - began[1]}))
"""
ONE_UPSCALE = """
import json, sys
from pathlib import Path
from runtime.bench.stages import measure_stages, stages_json
from runtime.loader import load_pipeline
pack, picture = map(Path, sys.argv[1:])
result = measure_stages(
    lambda name: load_pipeline(pack=pack, device="cpu", backend=name), ["auto"], picture,
    rounds=1, warm_ups=0, processor_time=False)
print(json.dumps(stages_json(result)))
"""


@dataclass(frozen=True)
class Size:
    """Shapes of what runs.

    Attributes:
        network: of the transformer.
        vae: of the autoencoder.
        text_tokens: of a prompt.
        picture_px: side of the picture.
        probe_px: side of the crop of it that is probed.
    """

    network: TransformerConfig = field(default_factory=TransformerConfig)
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)
    text_tokens: int = TEXT_TOKENS
    picture_px: int = 128
    probe_px: int = 32


def write_base(folder: Path, size: Size) -> Path:
    """A base folder of random numbers, autoencoder and scheduler; prompts lie beside it.

    Its sampling defaults let pictures be as small as the probe's.

    Returns:
        The prompts' file.
    """
    prompts = folder / "prompts.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    sampling = FAMILY.sampling.model_copy(update={"min_side_px": SCALE * size.probe_px})
    (folder / SAMPLING_FILE).write_text(sampling.model_dump_json())
    if not prompts.exists():
        torch.manual_seed(SEED)
        AutoencoderKL(**size.vae).save_pretrained(folder / "vae")
        FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
        shapes = {
            "embeds": (size.text_tokens, size.network.joint_attention_dim),
            "pooled": (size.network.pooled_projection_dim,),
        }
        tensors = {
            f"{side}.{part}": torch.randn(shape).bfloat16()
            for side in ("positive", "negative")
            for part, shape in shapes.items()
        }
        save_file(tensors, prompts)
    return prompts


def write_pictures(folder: Path, size: Size) -> Path:
    """A folder with one picture, the middle of a photo."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = held_out_photos()["astronaut"]
    top, left = ((side - size.picture_px) // 2 for side in photo.shape[:2])
    crop = photo[top : top + size.picture_px, left : left + size.picture_px]
    Image.fromarray((crop * 255).round().astype(np.uint8)).save(folder / "picture.png")
    return folder


def load(pack: Path) -> dict[str, Any]:
    """What loading a pack took, without and with Python's own start and imports."""
    took, said = _said_by(ONE_LOAD, pack)
    return took | said


def upscale(pack: Path, picture: Path) -> dict[str, Any]:
    """What one upscale took, and where its time went (`runtime.bench.stages`)."""
    took, said = _said_by(ONE_UPSCALE, pack, picture)
    return took | {"stages": said["seconds"]}


def _said_by(program: str, pack: Path, *arguments: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a program took, and the JSON that it printed."""
    output = pack.parent / "said.json"
    command = [sys.executable, "-c", program, str(pack), *map(str, arguments)]
    with output.open("w") as stream:
        took = run(command, stdout=stream)
    return took, json.loads(output.read_text())


def measure(work: Path, size: Size, *, target: str, parts: Collection[str]) -> dict[str, Any]:
    """Run parts of everything.

    Args:
        work: folder for what is made; the checkpoint, the base and the pack stay.
        size: of the network and the picture.
        target: bits.
        parts: some of `PARTS`; ``verify``, ``load`` and ``upscale`` read the pack that ``build``
            made.

    Returns:
        What each took, with the machine as it was then.
    """
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, base = random_checkpoint(work, size.network), work / "base"
    prompts, pictures = write_base(base, size), write_pictures(work / "pictures", size)
    pack = work / "dit4sr_random.qpack"
    calibration, sensitivity = work / "calibration.json", work / "sensitivity.json"
    sampler = ["--steps", str(STEPS), "--guidance", str(GUIDANCE)]
    model = ["--base", str(base), "--prompts", str(prompts), *sampler]
    recipe = ["--recipe", "q-dit4sr", "--force"]
    seen = [str(checkpoint), "--calib", str(pictures), *model]
    probed = ["--pictures", "1", "--cotangents", "1", "--crop", str(size.probe_px)]
    run_part: dict[str, Callable[[], dict[str, Any]]] = {
        "build": lambda: build(checkpoint, pack, target, *model, *recipe) | _pack_bytes(pack),
        "verify": lambda: run([*QPLAN, "verify", str(pack)]),
        "load": lambda: load(pack),
        "upscale": lambda: upscale(pack, pictures / "picture.png"),
        "calibrate": lambda: run(
            [*QPLAN, "calibrate", *seen, *recipe, "--target", target, "-o", str(calibration)]
        ),
        "probe": lambda: run([*QPLAN, "probe", *seen, *probed, "--force", "-o", str(sensitivity)]),
    }
    sampling = {"steps": STEPS, "guidance": GUIDANCE, "picture_px": size.picture_px}
    sampling |= {"probe_px": size.probe_px}
    result: dict[str, Any] = {"target": target, "sampling": sampling}
    for part in PARTS:
        if part in parts:
            machine = machine_facts(torch.device("cpu"))
            result[part] = run_part[part]() | {"machine": machine}
    return result


def _pack_bytes(pack: Path) -> dict[str, int]:
    return {"pack_bytes": sum(f.stat().st_size for f in pack.rglob("*") if f.is_file())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("out/full"), help="needs 9 GB of disk")
    parser.add_argument("--target", default="W4A4")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to run")
    parser.add_argument("--json", type=Path, help="write the result here, beside what is there")
    arguments = parser.parse_args()
    result = measure(arguments.work, Size(), target=arguments.target, parts=arguments.parts)
    file: Path | None = arguments.json
    if file is not None and file.exists():
        result = json.loads(file.read_text()) | result
    text = json.dumps(result, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n")


if __name__ == "__main__":
    main()
