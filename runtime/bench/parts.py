"""Where the time of the `cpu` backend goes: a clock around its parts, and around attention."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.hadamard import Rotation
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.int8_weight import Int8Weight, inexact_reason
from runtime.backends.cpu.kernels import native_kernels
from runtime.backends.cpu.packed_weight import Codes, PackedWeight
from runtime.bench.timing import Timer, Work
from runtime.network.blocks import Streams

Part = tuple[str, str, str]
"""Its name, and module and qualified name of a function."""
PARTS: tuple[Part, ...] = (
    ("rotation and codes", "runtime.backends.cpu.native_linear", "NativeLinear.prepare"),
    ("factors", "runtime.backends.cpu.factors", "Factors.coordinates"),
    ("integer products", "runtime.backends.cpu.packed_weight", "PackedWeight.apply"),
    ("rotation", "runtime.backends.cpu.rotation", "CpuRotation.__call__"),
    ("codes", "runtime.backends.cpu.linear", "CpuLinear._quantize"),
    ("codes", "runtime.backends.cpu.linear", "CpuLinear.prepare"),
    ("integer products", "runtime.backends.cpu.int8_weight", "Int8Weight.product"),
    ("factors", "runtime.backends.cpu.linear", "CpuLinear._add_unquantized_part"),
    ("sums", "runtime.backends.cpu.linear", "CpuLinear.apply_to"),
    ("attention", "runtime.network.attention", "attend"),
    ("attention", "torch.nn.functional", "scaled_dot_product_attention"),
    ("gelu", "torch.nn.functional", "gelu"),
)
"""Of layers on the compiled kernels and of those on oneDNN. Without a
function that the backend does not have, its time belongs to whoever calls it. With the compiled
kernels the integer products include all that is done in their pass: scales, bias, the factors'
second half, GELU."""
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
    """Time spent in named functions, without that of the named functions they call.

    Attributes:
        seconds, calls: by name.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
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
                self.calls[part] = self.calls.get(part, 0) + 1

        return timed


@contextlib.contextmanager
def clocked(clock: Clock, parts: Sequence[Part] = PARTS) -> Iterator[list[str]]:
    """All ``parts`` under ``clock``; gives the names of those that do not exist."""
    missing = []
    with contextlib.ExitStack() as stack:
        for part, module, path in parts:
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
    """Best rate that the products reach here: billions of operations per second.

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
    bits = min(activation_bits, 8)
    codes = torch.randint(2**bits, (rows, width), dtype=torch.uint8)
    weight = torch.randint(16, (width, width), dtype=torch.uint8)
    kernels = native_kernels().kernels
    if kernels is not None:
        record = QuantizedWeight(
            *("layer", width, width, 4, pack_codes(weight, 4), torch.ones(width)),
            rotation=Rotation.identity(width),
        )
        packed, tokens = PackedWeight(record, kernels), Codes(codes, torch.ones(rows), bits)
        return lambda: packed.apply(tokens, None, torch.float32)
    if inexact_reason() is not None:
        return None
    prepacked = Int8Weight(weight, 4, torch.ones(width))
    return lambda: prepacked.product(codes, bits, torch.bfloat16)
