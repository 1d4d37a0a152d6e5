"""One full-width block on the CPU: unquantized peers, the reference backend, the fast backend.

    OMP_NUM_THREADS=2 python -m benchmarks.cpu_block --json out/cpu_block.json

A block of DiT4SR (hidden 1536, 24 heads of 64; 1024 image, 1024 control and 333 text tokens, batch
1) is filled with random weights. Its quantized twins get random codes and random factors of the
ranks 32 and 8, with the finest blocks that the budget allows: values do not matter for time. All
candidates take turns, so that a disturbance of the machine meets them alike; ratios are of medians.
Then the fast backend runs with a clock around its parts.

``--processor-time`` counts one thread's processor time instead of the wall's: with other work on
the machine, threads that wait for each other at every step measure little else.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.bitpack import pack_codes
from artifacts.gaussian_quantizer import quantize_rows
from artifacts.hadamard import Rotation, random_signs
from artifacts.quantized_weight import QuantizedWeight
from planner.hsvd import block_shapes
from runtime.backends import BACKENDS, cpu, int8_weight
from runtime.backends.cpu_rotation import CpuRotation
from runtime.blocks import ControlBlock
from schemas.manifest import QuantizerRecord
from schemas.transformer_config import TransformerConfig

GRID = (32, 32)
TEXT_TOKENS = 333
GLOBAL_RANK, LOCAL_RANK = 32, 8
BITS = 4
PEERS = ("torch bfloat16", "torch float32", "reference, float32")
GAUSSIAN = QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian")


def random_layer(name: str, layer: nn.Linear, generator: torch.Generator) -> QuantizedWeight:
    """A quantized layer of the shape of ``layer``."""
    out_features, in_features = layer.weight.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    codes, scale = quantize_rows(0.02 * normal(out_features, in_features), BITS)
    rows, columns = block_shapes(out_features, in_features, LOCAL_RANK)[-1]
    blocks = (out_features // rows, in_features // columns)
    return QuantizedWeight(
        name=name,
        out_features=out_features,
        in_features=in_features,
        weight_bits=BITS,
        codes=pack_codes(codes, BITS),
        scale=scale,
        rotation=Rotation.for_size(in_features),
        signs=random_signs(in_features, 0),
        global_up=(0.02 * normal(out_features, GLOBAL_RANK)).bfloat16(),
        global_down=(0.1 * normal(GLOBAL_RANK, in_features)).bfloat16(),
        local_up=(0.02 * normal(*blocks, rows)).bfloat16(),
        local_down=(0.1 * normal(*blocks, columns)).bfloat16(),
        bias=(0.02 * normal(out_features)).bfloat16(),
    )


class Block:
    """One block with its inputs, in one dtype.

    Attributes:
        run: one forward pass.
    """

    def __init__(self, dtype: torch.dtype, *, dual: bool, backend: str | None) -> None:
        config = TransformerConfig()
        generator = torch.Generator().manual_seed(0)
        with torch.device("meta"):
            self.block = ControlBlock(config, "q", dual=dual, last=False)
        unread = {"to_k_control"}
        if dual:
            unread |= {f"attn2.{part}" for part in ("add_q", "add_k", "add_v", "to_add_out")}
        for name, module in list(self.block.named_modules()):
            if isinstance(module, nn.Linear) and backend is not None:
                if any(part in name for part in unread):
                    continue
                record = random_layer(name, module, generator)
                self.block.set_submodule(name, BACKENDS[backend].make_layer(record, GAUSSIAN))
        state = {
            name: torch.randn(parameter.shape, generator=generator).mul_(0.02).to(dtype)
            for name, parameter in self.block.named_parameters()
        }
        self.block.load_state_dict(state, assign=True)
        self.block.eval().requires_grad_(False)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        width = config.hidden_size
        tokens = 2 * GRID[0] * GRID[1]
        self.inputs = (normal(1, tokens, width), normal(1, TEXT_TOKENS, width), normal(1, width))
        quantized = (n for n, m in self.block.named_modules() if getattr(m, "name", None))
        self.bits = dict.fromkeys(quantized, BITS)

    def run(self) -> None:
        """One forward pass."""
        self.block(*self.inputs, GRID, self.bits)


class Clock:
    """Time spent in named functions, without that of the named functions they call."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with its own time added to ``part``."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = self._now()
            try:
                return function(*arguments, **options)
            finally:
                whole = self._now() - began
                own = whole - self._inner.pop()
                self._inner[-1] += whole
                self.seconds[part] = self.seconds.get(part, 0.0) + own

        return timed


@contextlib.contextmanager
def clocked(clock: Clock) -> Iterator[None]:
    """The parts of the fast backend, and attention, under ``clock``."""
    parts: list[tuple[str, Any, str]] = [
        ("rotation", CpuRotation, "__call__"),
        ("quantize", cpu.CpuLinear, "_quantize"),
        ("integer product", int8_weight.Int8Weight, "product"),
        ("factors", cpu.CpuLinear, "_unquantized_part"),
        ("epilogue", cpu.CpuLinear, "apply_to"),
        ("quantize", cpu.CpuLinear, "prepare"),
        ("attention", F, "scaled_dot_product_attention"),
        ("gelu", F, "gelu"),
    ]
    with contextlib.ExitStack() as stack:
        for part, owner, name in parts:
            timed = clock.around(part, getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, timed))
        yield


def product_rates(now: Callable[[], float]) -> dict[str, float]:
    """Best GOPS of the kernels at 2048 x 1536 x 1536: integers, bfloat16 and float32."""
    tokens, width = 2 * GRID[0] * GRID[1], TransformerConfig().hidden_size
    operations = 2 * tokens * width * width
    codes = torch.randint(2**BITS, (tokens, width), dtype=torch.uint8)
    weight = int8_weight.Int8Weight(
        torch.randint(2**BITS, (width, width), dtype=torch.uint8), BITS, torch.ones(width)
    )
    x, w = torch.randn(tokens, width), torch.randn(width, width)
    x16, w16 = x.bfloat16(), w.bfloat16()
    kernels = {
        "8-bit integers": lambda: weight.product(codes, BITS, torch.bfloat16),
        "bfloat16": lambda: F.linear(x16, w16),
        "float32": lambda: F.linear(x, w),
    }
    return {name: operations / min(seconds(run, 8, now)) / 1e9 for name, run in kernels.items()}


def seconds(run: Callable[[], object], rounds: int, now: Callable[[], float]) -> list[float]:
    """Seconds of each of ``rounds`` calls, after one to warm up."""
    run()
    times = []
    for _ in range(rounds):
        began = now()
        run()
        times.append(now() - began)
    return times


def linear_operations(block: Block) -> int:
    """Operations of the products of codes in one pass: 2 per multiply-accumulate."""
    total = 0

    def count(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counting(*arguments: Any) -> Tensor:
            nonlocal total
            y = original(*arguments)
            total += 2 * y.numel() * arguments[0].in_features
            return y

        return counting

    method = count(int8_weight.Int8Weight.product)
    with mock.patch.object(int8_weight.Int8Weight, "product", method):
        block.run()
    return total


def measure(*, dual: bool, rounds: int, now: Callable[[], float]) -> dict[str, Any]:
    """Time all candidates on one kind of block."""
    candidates = {
        "torch bfloat16": Block(torch.bfloat16, dual=dual, backend=None),
        "torch float32": Block(torch.float32, dual=dual, backend=None),
        "reference, float32": Block(torch.float32, dual=dual, backend="reference"),
        "cpu, float32": Block(torch.float32, dual=dual, backend="cpu"),
        "cpu, bfloat16": Block(torch.bfloat16, dual=dual, backend="cpu"),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, block in candidates.items():
            times[name] += seconds(block.run, 1, now)
    medians = {name: statistics.median(values) for name, values in times.items()}
    fast = candidates["cpu, bfloat16"]
    clock = Clock(now)
    with clocked(clock):
        whole = [clock.around("rest", fast.run) for _ in range(rounds)]
        for run in whole:
            run()
    parts = {part: spent / rounds for part, spent in clock.seconds.items()}
    operations = linear_operations(fast)
    return {
        "ms": {
            name: {
                "median": 1e3 * medians[name],
                "lowest": 1e3 * min(values),
                "highest": 1e3 * max(values),
            }
            for name, values in times.items()
        },
        "times_faster": {peer: medians[peer] / medians["cpu, bfloat16"] for peer in PEERS},
        "parts_ms": {part: 1e3 * spent for part, spent in sorted(parts.items())},
        "integer_gops": operations / parts["integer product"] / 1e9,
    }


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--processor-time", action="store_true", help="of one thread")
    arguments = parser.parse_args()
    now = time.process_time if arguments.processor_time else time.perf_counter
    if arguments.processor_time:
        torch.set_num_threads(1)
    result = {
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "clock": now.__name__,
            "torch": torch.__version__,
            "largest_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"),
        },
        "best_gops": product_rates(now),
        "block with two attentions": measure(dual=True, rounds=arguments.rounds, now=now),
        "block with one attention": measure(dual=False, rounds=arguments.rounds, now=now),
    }
    text = json.dumps(_rounded(result), indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
