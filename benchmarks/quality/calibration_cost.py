"""What calibrating on fewer images and at fewer steps costs in quality.

    python -m benchmarks.quality.calibration_cost

The bundled model's packs by the paper's recipe, W4A4, ranks 4 and 2: the weights are the same, the
bits of activations over the steps come from calibrations of so many images and steps. A step of the
sampler takes the bits of the calibrated step nearest to it. Prints the final latent's error against
the unquantized network from the same noise, in dB, mean over crops, and what changes against the
full calibration, with a 95 % interval over crops.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from artifacts.pack.reader import open_pack
from benchmarks.quality.intervals import Table, paired_difference, per_image
from benchmarks.quality.measure import measure
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.rows import Row
from benchmarks.quality.small_run import start
from planner.build.build import build
from planner.build.calibrated_build import CalibrationRun, measure_inputs
from planner.calibrate.settings import CalibrationSettings
from schemas.calibration import Calibration

ROW = Row(
    "W4A4",
    "calibration",
    "Q-DiT4SR",
    "Q-DiT4SR",
    recipe="q-dit4sr",
    overrides={"global_rank": 4, "local_rank": 2},
)


@dataclass(frozen=True)
class Spent:
    """How much a calibration sees: so many images, and so many steps of the sampler."""

    images: int
    steps: int


FULL = Spent(32, 8)
LESS = (Spent(4, 8), Spent(1, 8), Spent(4, 2))


def calibration(maker: PackMaker, spent: Spent, work: Path) -> Calibration:
    """What the network's layers are fed, as far as ``spent`` sees it."""
    sampling = maker.base.sampling.model_copy(update={"steps": spent.steps})
    run = CalibrationRun(maker.images, CalibrationSettings(images=spent.images))
    base = replace(maker.base, sampling=sampling)
    return measure_inputs(maker.checkpoint, maker.settings(ROW), base, run, work).calibration


def main() -> None:
    """Measure and print."""
    arguments, bench, maker = start(__doc__, crops=16)
    found: dict[Spent, Table] = {}
    for spent in (FULL, *LESS):
        name = f"calibration-{spent.images}-{spent.steps}"
        seen = calibration(maker, spent, arguments.work / name)
        output = arguments.work / f"{name}.qpack"
        build(
            *(maker.checkpoint, output, maker.settings(ROW), maker.base),
            calibration=seen,
            force=True,
        )
        quantized = maker.load(open_pack(output))
        values = measure(bench, quantized.network, quantized.bits_at, lambda _done, _total: None)
        found[spent] = values["latent_db"]
        change = paired_difference(found[spent], found[FULL])
        print(
            f"{spent.images:2} images x {spent.steps} steps"
            f" {spent.images * spent.steps / (FULL.images * FULL.steps):5.3f} of the work"
            f" {per_image(found[spent]).mean():6.2f} dB,"
            f" {change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
