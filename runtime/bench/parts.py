"""Where the time of the `cpu` backend goes: a clock around its parts, and around attention."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from runtime.backends.cpu.int8_weight import Int8Weight, inexact_reason
from runtime.bench.timing import Timer, Work
from runtime.network.blocks import Streams

PARTS = (
    ("rotation", "runtime.backends.cpu.rotation", "CpuRotation.__call__"),
    ("codes", "runtime.backends.cpu.linear", "CpuLinear._quantize"),
    ("codes", "runtime.backends.cpu.linear", "CpuLinear.prepare"),
    ("integer products", "runtime.backends.cpu.int8_weight", "Int8Weight.product"),
    ("factors", "runtime.backends.cpu.linear", "CpuLinear._add_unquantized_part"),
    ("sums", "runtime.backends.cpu.linear", "CpuLinear.apply_to"),
    ("attention", "torch.nn.functional", "scaled_dot_product_attention"),
    ("gelu", "torch.nn.functional", "gelu"),
)
"""Part, module and function. Without one that the backend does not have, its time belongs to
whoever calls it."""
INTEGER_PRODUCTS = "integer products"
REST = "norms, convolution and the rest"
_RATE_ROUNDS = 8


@dataclass(frozen=True)
class PartTimes:
    """One forward pass of a block.

    Attributes:
        whole: seconds, the mean over the rounds; slower than without clocks by little.
        parts: seconds by part, adding up to ``whole``.
        missing: functions that were to be clocked and do not exist.
        integer_gops: billions of operations (two per multiply-accumulate) per second of the
            products of codes; None where they have no clock.
    """

    whole: float
    parts: dict[str, float]
    missing: list[str]
    integer_gops: float | None


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
def clocked(clock: Clock) -> Iterator[list[str]]:
    """All `PARTS` under ``clock``; gives the names of those that do not exist."""
    missing = []
    with contextlib.ExitStack() as stack:
        for part, module, path in PARTS:
            *owners, name = path.split(".")
            owner: Any = importlib.import_module(module)
            for step in owners:
                owner = getattr(owner, step, None)
            function = None if owner is None else vars(owner).get(name)
            if function is None:
                missing.append(f"{module}.{path}")
                continue
            setattr(owner, name, clock.around(part, function))
            stack.callback(setattr, owner, name, function)
        yield missing


def part_times(work: Work, *, rounds: int, now: Callable[[], float], products: int) -> PartTimes:
    """Run a block of the `cpu` backend and tell its parts.

    Args:
        work: one pass, warm already.
        rounds: how often.
        now: the clock.
        products: multiply-accumulates of codes in one pass.
    """
    clock = Clock(now)
    with clocked(clock) as missing:
        run = clock.around(REST, work)
        for _ in range(rounds):
            run()
    parts = {part: seconds / rounds for part, seconds in clock.seconds.items()}
    integer = parts.get(INTEGER_PRODUCTS)
    return PartTimes(
        whole=sum(parts.values()),
        parts=dict(sorted(parts.items(), key=lambda item: -item[1])),
        missing=missing,
        integer_gops=2 * products / integer / 1e9 if integer else None,
    )


def product_rates(
    width: int, streams: Streams, *, activation_bits: int, timer: Timer
) -> dict[str, float]:
    """Best rate that oneDNN's products reach here: billions of operations per second.

    Args:
        width: inputs and outputs of the product.
        streams: as many rows as the image and control tokens of the batch.
        activation_bits: of the codes.
        timer: of one product.
    """
    rows = 2 * streams.image_tokens * streams.batch
    x, w = torch.randn(rows, width), torch.randn(width, width)
    x16, w16 = x.bfloat16(), w.bfloat16()
    kernels: dict[str, Work] = {
        "bfloat16": lambda: F.linear(x16, w16),
        "float32": lambda: F.linear(x, w),
    }
    integers = _integer_product(rows, width, activation_bits)
    if integers is not None:
        kernels = {"8-bit integers": integers, **kernels}
    rates = {}
    for name, run in kernels.items():
        run()
        seconds = min(timer(run) for _ in range(_RATE_ROUNDS))
        rates[name] = 2 * rows * width * width / seconds / 1e9
    return rates


def _integer_product(rows: int, width: int, activation_bits: int) -> Work | None:
    """The product of codes alone; None where this processor's integer kernels are not exact."""
    if inexact_reason() is not None:
        return None
    bits = min(activation_bits, 8)
    codes = torch.randint(2**bits, (rows, width), dtype=torch.uint8)
    weight = Int8Weight(torch.randint(16, (width, width), dtype=torch.uint8), 4, torch.ones(width))
    return lambda: weight.product(codes, bits, torch.bfloat16)
