"""A whole step of the network at full width: quantized against bfloat16, time and memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.block import Step, linears, run_blocks
from runtime.backends.triton.linear import TritonLinear
from runtime.backends.triton.random_layers import RULE, full_layer
from runtime.backends.triton.resident import Residency
from runtime.backends.triton.timing import as_json, captured, interleaved

BATCH, GRID, TEXT_TOKENS = 2, (32, 32), 333
"""Both guidance branches of a 512x512 picture: 1024 image, 1024 control, 333 text tokens."""
BITS = 4
TARGETS = {
    ("int8, compiled, graph", "bf16 compiled, graph"): 1.35,
    ("int8, compiled, graph", "bf16 eager"): 1.7,
    ("packed, compiled, graph", "bf16 compiled, graph"): 1.0,
}
"""Smallest factor by which the first should be faster than the second."""


def quantized_step(device: torch.device, residency: Residency) -> Step:
    """All layers quantized, the rest in bfloat16."""

    def make(name: str, out_features: int, in_features: int) -> nn.Module:
        return TritonLinear(full_layer(name, out_features, in_features, device), RULE, residency)

    return _ready(Step(make, grid=GRID), device)


def plain_step(device: torch.device) -> Step:
    """All of it in bfloat16."""

    def make(name: str, out_features: int, in_features: int) -> nn.Module:
        return nn.Linear(in_features, out_features, device=device, dtype=torch.bfloat16)

    return _ready(Step(make, grid=GRID), device)


def _ready(step: Step, device: torch.device) -> Step:
    # Quantized layers keep their own dtypes: their tensors are buffers, not parameters.
    for parameter in step.parameters():
        parameter.data = parameter.data.to(device, torch.bfloat16)
    return step.to(device).eval().requires_grad_(False)


def inputs(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, text and conditioning vector."""
    width = 1536
    shapes = ((BATCH, 2 * GRID[0] * GRID[1], width), (BATCH, TEXT_TOKENS, width), (BATCH, width))
    first, second, third = (torch.randn(shape, device=device).bfloat16() for shape in shapes)
    return first, second, third


def measure(device: torch.device, *, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Times of all candidates in milliseconds, and their memory."""
    arguments = inputs(device)
    works: dict[str, Callable[[], object]] = {}
    skipped: dict[str, str] = {}
    resident: dict[str, Any] = {}

    def offer(name: str, make: Callable[[], Callable[[], object]]) -> None:
        """Take a candidate, or note why it does not run here."""
        note(name)
        try:
            works[name] = make()
        except Exception as error:  # torch.compile needs a C compiler, for one
            skipped[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"

    for name, build, residency in (
        ("bf16", plain_step, None),
        ("int8", quantized_step, "int8"),
        ("packed", quantized_step, "packed"),
    ):
        step = build(device) if residency is None else build(device, residency)
        bits = None if residency is None else _column(step)

        # Two blocks compiled, not 24: it is the same code with less waiting.
        compiled = [torch.compile(block) for block in step.blocks]

        def run(blocks: Any = step.blocks, bits: Any = bits) -> Tensor:
            return run_blocks(blocks, *arguments, bits)

        def run_compiled(blocks: Any = compiled, bits: Any = bits) -> Tensor:
            return run_blocks(blocks, *arguments, bits)

        resident[name] = _resident(step)
        eager = "eager" if residency is None else "layers eager"
        separator = " " if residency is None else ", "
        if residency is None:
            offer("bf16 eager", lambda run=run: _warm(run))
            offer("bf16 compiled", lambda run=run_compiled: _warm(run))
        offer(f"{name}{separator}{eager}, graph", lambda run=run: captured([run]))
        offer(
            f"{name}{separator}compiled, graph",
            lambda run=run_compiled: captured([_warm(run)]),
        )
    note("timing")
    spreads = interleaved(works, rounds=rounds)
    return {
        "tokens": {"batch": BATCH, "image": GRID[0] * GRID[1], "text": TEXT_TOKENS},
        "bits": {"weight": BITS, "activation": BITS},
        "us": as_json(spreads),
        "skipped": skipped,
        "resident": resident,
        "targets": [
            {
                "fast": fast,
                "peer": peer,
                "asked": asked,
                "reached": round(spreads[peer].median / spreads[fast].median, 3),
            }
            for (fast, peer), asked in TARGETS.items()
            if fast in spreads and peer in spreads
        ],
    }


def _column(step: Step) -> dict[str, int]:
    return {module.name: BITS for module in linears(step).values()}


def _warm(run: Callable[[], object]) -> Callable[[], object]:
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    return run


def _resident(step: Step) -> dict[str, Any]:
    """Bytes of the linear layers, and their share of bfloat16's weights."""
    whole = used = 0
    for module in linears(step).values():
        whole += 2 * module.out_features * module.in_features
        if isinstance(module, TritonLinear):
            used += module.resident_bytes
        else:
            used += sum(parameter.nbytes for parameter in module.parameters())
    return {"bytes": used, "share_of_bf16": round(used / whole, 4)}
