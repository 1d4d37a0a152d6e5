"""What VaTMP does when only some kinds of layers follow it.

    python -m benchmarks.quality.vatmp_by_kind

One W4A4 pack is calibrated; its bit grid takes VaTMP's activation bits for layers of one kind and
the target's for all others. Prints, for every kind of layer whose bits VaTMP changes at all: how
many layers that is, how much the distortion that VaTMP minimises goes down, and the final latent's
error against the unquantized network from the same noise, in dB, beside that of the grid with equal
bits everywhere. Three more columns tell which steps matter: with only those of its bits that lie
above the target's (more storage), with only those below (less), and with the steps in reverse order
(the same bits at other times).
"""

from collections.abc import Callable, Sequence

import torch

from artifacts.pack.reader import open_pack
from benchmarks.quality.kinds import kind_of
from benchmarks.quality.packs import BACKEND
from benchmarks.quality.small_run import latent_error_db, start
from planner.allocate.vatmp import activation_distortion, allocate_timesteps
from planner.build.calibrated_build import CalibrationRun, measure_inputs
from planner.recipes import recipe_settings
from planner.target import parse_target
from runtime.load import network_from_pack
from runtime.sampling.bit_schedule import BitSchedule

TARGET = parse_target("W4A4")
RANKS = {"global_rank": 4, "local_rank": 2}

Change = Callable[[Sequence[int]], tuple[int, ...]]
"""From the bits that VaTMP chose for a layer to those that it gets."""


def main() -> None:
    """Measure and print."""
    arguments, bench, maker = start(__doc__, crops=8)
    settings = recipe_settings("q-dit4sr", TARGET, **RANKS)
    run = CalibrationRun(maker.images)
    work = arguments.work / "vatmp-by-kind"
    measured = measure_inputs(maker.checkpoint, settings, maker.base, run, work)
    assert measured.weights is not None
    pack = open_pack(measured.weights)
    network = network_from_pack(
        pack, device=torch.device("cpu"), dtype=torch.float32, backend=BACKEND
    )
    fed = measured.calibration.mean_squares
    equal = dict.fromkeys(fed, (int(TARGET.activation_bits),) * arguments.steps)
    chosen = allocate_timesteps(fed, TARGET.activation_bits)
    changed = [name for name in fed if chosen[name] != equal[name]]

    def error_db(names: Sequence[str], change: Change = tuple) -> float:
        layers = {
            name: layer.model_copy(
                update={"activation_bits": change(chosen[name]) if name in names else equal[name]}
            )
            for name, layer in pack.bit_grid.layers.items()
        }
        grid = pack.bit_grid.model_copy(update={"layers": layers})
        return latent_error_db(bench, network, BitSchedule(grid))

    target = int(TARGET.activation_bits)
    changes: list[Change] = [
        tuple,
        lambda bits: tuple(max(width, target) for width in bits),
        lambda bits: tuple(min(width, target) for width in bits),
        lambda bits: tuple(reversed(bits)),
    ]
    print(f"{'':42} latent error, dB")
    print(f"{'VaTMP for':24} {'layers':>6} {'distortion':>10} {'':>8} raised lowered reversed")
    print(f"{'none':24} {0:6} {1:10.3f} {error_db([]):8.2f}", flush=True)
    kinds = sorted({kind_of(name) for name in changed})
    for kind in ["all", *kinds]:
        names = [name for name in changed if kind in ("all", kind_of(name))]
        before, after = (
            sum(activation_distortion(fed[name], bits[name]) for name in names)
            for bits in (equal, chosen)
        )
        errors = [error_db(names, change) for change in changes]
        found = "{:8.2f} {:6.2f} {:7.2f} {:8.2f}".format(*errors)
        print(f"{kind:24} {len(names):6} {after / before:10.3f} {found}", flush=True)
    print("\nmean square of the input and bits by step, of one layer of each kind:")
    for kind in kinds:
        first = next(name for name in changed if kind_of(name) == kind)
        print(first, " ".join(f"{value:.2g}" for value in fed[first]))
        print(f"{'':{len(first)}}", " ".join(map(str, chosen[first])))


if __name__ == "__main__":
    main()
