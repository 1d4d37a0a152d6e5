"""What rounding a layer by GPTQ takes, with and without a search, beside rounding to nearest.

    OMP_NUM_THREADS=1 python -m benchmarks.gptq_speed

Random weights and moments in DiT4SR's shapes; processor seconds of one layer each.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from planner.weights.gptq import gptq_weight_rows
from planner.weights.row_scales import quantize_weight_rows

SHAPES = "1536x1536,6144x1536,1536x6144"
BITS = 4


def processor_seconds(work: Callable[[], object]) -> float:
    """Of the whole process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", default=SHAPES, help="outputs x inputs; default: %(default)s")
    for shape in parser.parse_args(argv).shapes.split(","):
        outputs, inputs = map(int, shape.split("x"))
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(outputs, inputs, generator=generator)
        tokens = torch.randn(2 * inputs, inputs, generator=generator)
        moment = tokens.T @ tokens
        nearest = processor_seconds(lambda w=weight: quantize_weight_rows(w, BITS, "gaussian"))
        gptq, search = (
            processor_seconds(
                lambda w=weight, m=moment, s=searched: gptq_weight_rows(
                    w, m, BITS, "gaussian", search=s
                )
            )
            for searched in (False, True)
        )
        print(
            f"{shape}: {gptq:.2f} s, with a search {search:.2f} s, to nearest {nearest:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
