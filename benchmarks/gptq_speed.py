"""What rounding a layer by what it is fed takes: by GPTQ, with a search, with factors fitted to it.

    OMP_NUM_THREADS=1 python -m benchmarks.gptq_speed

Random weights and moments in DiT4SR's shapes, ranks 64 and 16 in 8 bits; processor seconds of one
layer each. The root of the moment counts in all but rounding to nearest; fitted, as a build of
normal effort does, a layer is rounded twice.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from planner.weights.effort import EFFORTS
from planner.weights.gptq import gptq_weight_rows
from planner.weights.hsvd import decompose
from planner.weights.moment_root import MomentRoot
from planner.weights.output_fit import fit_to_outputs
from planner.weights.row_scales import QuantizedRows, quantize_weight_rows

SHAPES = "1536x1536,6144x1536,1536x6144"
BITS = 4


def processor_seconds(work: Callable[[], object]) -> float:
    """Of the whole process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def times(outputs: int, inputs: int) -> dict[str, float]:
    """What was done with one layer -> seconds."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    tokens = torch.randn(2 * inputs, inputs, generator=generator)
    moment = tokens.T @ tokens
    factors = decompose(weight, global_rank=64, local_rank=16, factor_bits=8)
    effort = EFFORTS["normal"]

    def gptq(rows: torch.Tensor, root: MomentRoot | None, search: bool = False) -> QuantizedRows:
        return gptq_weight_rows(rows, root, BITS, "gaussian", search=search)

    def fit() -> object:
        root = MomentRoot.of(moment)
        assert root is not None
        return fit_to_outputs(
            factors,
            root,
            BITS,
            lambda rows: gptq(rows, root),
            turns=effort.fits,
            tolerance=effort.tolerance,
            seed=0,
        )

    residual = factors.residual
    works: dict[str, Callable[[], object]] = {
        "to nearest": lambda: quantize_weight_rows(residual, BITS, "gaussian"),
        "GPTQ": lambda: gptq(residual, MomentRoot.of(moment)),
        "with a search": lambda: gptq(residual, MomentRoot.of(moment), search=True),
        "factors fitted": fit,
    }
    return {name: processor_seconds(work) for name, work in works.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", default=SHAPES, help="outputs x inputs; default: %(default)s")
    for shape in parser.parse_args(argv).shapes.split(","):
        found = times(*map(int, shape.split("x")))
        print(f"{shape}: " + ", ".join(f"{n} {s:.2f} s" for n, s in found.items()), flush=True)


if __name__ == "__main__":
    main()
