"""Measures a table of tile sizes: all plausible ones for the network's shapes, timed."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.triton.device import capability
from runtime.backends.triton.launch import low_rank_activations, prepare_tokens, product
from runtime.backends.triton.linear import TritonLinear
from runtime.backends.triton.rotation_plan import RotationPlan, plan_for
from runtime.backends.triton.tile_table import (
    forget,
    m_bucket,
    row_for,
    row_name,
    triton_version,
)
from runtime.backends.triton.tile_table_file import LOW_RANK, SETTINGS, Config, Origin, write_rows
from runtime.bench.random_layers import random_layer
from runtime.bench.timing import captured, interleaved, timer_for
from runtime.bench.workload import Ranks
from runtime.network.finite_watch import number_of
from schemas.manifest import ScaleRule

SHAPES = ((1536, 1536), (6144, 1536), (1536, 6144), (13824, 1536), (9216, 1536))
TOKENS = {2: SHAPES[3:], 666: SHAPES[:3], 2048: SHAPES[:3], 4096: SHAPES[:3]}
"""Tokens of a step at 512x512 with two guidance branches: conditioning, text, one stream, both.
Of shapes in one bucket the one with most tokens is measured."""
BITS = 4
RANKS = Ranks(32, 8)
RULE: ScaleRule = "gaussian"
_CALLS = 4
"""Calls of a kernel per time: one is as short as what the clock adds."""


def tune(
    device: torch.device,
    *,
    table: Path,
    rounds: int,
    until: Callable[[], bool],
    note: Callable[[str], None],
) -> dict[str, Config]:
    """Time configurations and write the best ones into a table, after every shape.

    Args:
        device: where.
        table: the file, which may be new; other rows of it stay.
        rounds: times per configuration.
        until: asked after every shape; True ends it early.
        note: told what is going on.

    Returns:
        The rows that were written, which are in force from now on if ``table`` is one that is read.

    Raises:
        OSError: the table cannot be written.
        ValueError: the file is no table.
    """
    level = capability(device)
    origin = Origin(torch.cuda.get_device_name(device), triton_version())
    written: dict[str, Config] = {}
    try:
        for tokens, n, k in _shapes():
            with torch.inference_mode():
                generator = torch.Generator().manual_seed(0)
                layer = random_layer(
                    "tuned", n, k, weight_bits=BITS, ranks=RANKS, generator=generator
                )
                plan = plan_for(layer.rotation, layer.signs, None, device)
                for kernel, run in _kernels(device, tokens, layer, plan).items():
                    name = _measured_name(level, kernel, tokens, n, k)
                    if name in written:
                        continue
                    configs = distinct(configurations(kernel, tokens), plan)
                    best = _best(run, configs, device, rounds)
                    if best is not None:
                        written[name] = best[0]
                        note(f"{name}: {1e6 * best[1]:.1f} us {best[0]}")
            write_rows(table, written, level, origin)
            if until():
                break
    finally:
        forget()
    return written


def rows_in_force(level: int) -> dict[str, str]:
    """Which row of the table every shape of the network takes on a device of this capability.

    Returns:
        By the name that the shape's own row would have, the name of the row.
    """
    return {
        _measured_name(level, kernel, tokens, n, k): row_for(
            level, kernel, m_bucket(tokens), k if kernel == "prepare" else n, k
        )
        for tokens, n, k in _shapes()
        for kernel in SETTINGS
    }


def _shapes() -> Iterator[tuple[int, int, int]]:
    """Tokens, outputs and inputs, the largest first."""
    for tokens, shapes in reversed(TOKENS.items()):
        for n, k in shapes:
            yield tokens, n, k


def _measured_name(level: int, kernel: str, tokens: int, n: int, k: int) -> str:
    """The row that a measurement writes: what a kernel does not depend on is left open."""
    width = {"prepare": k, LOW_RANK: None}.get(kernel, n)
    return row_name(level, kernel, m_bucket(tokens), width, k)


def _kernels(
    device: torch.device, tokens: int, weight: QuantizedWeight, plan: RotationPlan
) -> dict[str, Callable[[Config], object]]:
    """Every kernel as a function of its configuration."""
    x = torch.randn(tokens, plan.size, device=device).bfloat16()

    def prepare(config: Config) -> object:
        return prepare_tokens(
            x, plan, BITS, RULE, fault=number_of("tuned"), keep_rotated=True, config=config
        )

    eight_bits = TritonLinear(weight, RULE, "int8").to(device)
    packed = TritonLinear(weight, RULE, "packed").to(device)
    return {
        "prepare": prepare,
        "product8": _product(eight_bits, x),
        "product_packed": _product(packed, x),
        LOW_RANK: _low_rank(packed, x),
    }


def _product(layer: TritonLinear, x: Tensor) -> Callable[[Config], object]:
    """The integer product of a layer that has factors."""
    prepared = layer.prepare(x, BITS)
    codes, scale, sums, factors = prepared.codes, prepared.scale, prepared.sums, layer.factors
    assert codes is not None
    assert scale is not None
    assert sums is not None
    assert factors is not None
    low_rank = low_rank_activations(prepared.values, factors)

    def run(config: Config) -> object:
        return product(
            codes,
            scale,
            sums,
            layer.resident_codes(),
            layer.offsets,
            layer.scale,
            factors=factors,
            low_rank=low_rank,
            bias=layer.bias,
            dtype=x.dtype,
            config=config,
        )

    return run


def _low_rank(layer: TritonLinear, x: Tensor) -> Callable[[Config], object]:
    """The low-rank activations of its factors, from rotated tokens."""
    values, factors = layer.prepare(x, BITS).values, layer.factors
    assert factors is not None
    return lambda config: low_rank_activations(values, factors, config)


_FEW_TOKENS = ((64, 16), (128, 16), (64, 64), (128, 64))
_MANY_TOKENS = ((64, 128), (128, 64), (128, 128), (64, 256), (128, 256), (256, 128))
"""Channels and tokens of a tile."""


_PROGRAMS = ((4, 2, 255), (4, 3, 168), (4, 4, 128), (8, 1, 255), (8, 2, 128))
"""Warps, and how many programs with how many registers share a multiprocessor's 65,536."""


def configurations(kernel: str, tokens: int) -> Iterator[dict[str, int]]:
    """What is worth trying."""
    if kernel == "prepare":
        for elements, shape in itertools.product((2048, 4096, 8192), _PROGRAMS):
            warps, programs, registers = shape
            launch = {"programs": programs, "maxnreg": registers}
            yield {"elements": elements, "num_warps": warps, "num_stages": 1, **launch}
    elif kernel == LOW_RANK:
        for bm, bk, stages in itertools.product((16, 32, 64), (64, 128), (2, 3, 4)):
            yield {"BM": bm, "BK": bk, "num_warps": 4, "num_stages": stages}
    else:
        tiles = _FEW_TOKENS if tokens <= 64 else _MANY_TOKENS
        for (bn, bm), bk, stages in itertools.product(tiles, (64, 128), (3, 4)):
            # Sums of a large tile would fill the registers of four warps.
            warps = 8 if bn * bm >= 128 * 128 else 4
            sizes = {"BN": bn, "BM": bm, "BK": bk, "GROUP": 8}
            yield {**sizes, "num_warps": warps, "num_stages": stages}


def distinct(configs: Iterable[Config], plan: RotationPlan) -> list[Config]:
    """All that launch something else: long tokens leave no choice of how many a program holds."""
    first: dict[tuple[object, ...], Config] = {}
    for config in configs:
        launched = dict(config)
        if "elements" in launched:
            launched["elements"] = plan.tokens_at_once(launched["elements"])
        first.setdefault(tuple(launched.items()), config)
    return list(first.values())


def compile_all(
    run: Callable[[Config], object], configs: Iterable[Config], device: torch.device
) -> None:
    """Run a kernel once in every configuration, side by side.

    Compiling takes a second or more each and hardly any of Python's time. Configurations that do
    not run are met again by whoever runs them next.
    """

    def once(config: Config) -> None:
        with torch.inference_mode(), torch.cuda.device(device), suppress(Exception):
            run(config)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(once, configs))
    torch.cuda.synchronize()


def _best(
    run: Callable[[Config], object], configs: Sequence[Config], device: torch.device, rounds: int
) -> tuple[dict[str, int], float] | None:
    """The fastest configuration that runs, and its time in seconds."""
    works = {}
    if device.type == "cuda":  # elsewhere kernels are interpreted
        compile_all(run, configs, device)
    for config in configs:
        try:
            works[json.dumps(config)] = captured(partial(run, config), _CALLS)
        except Exception:  # too much shared memory, or no such tile
            torch.cuda.synchronize()
    if not works:
        return None
    timer = timer_for(device, processor_time=False)
    spreads = interleaved(works, rounds=rounds, timer=timer, calls=_CALLS)
    name = min(spreads, key=lambda one: spreads[one].median)
    return json.loads(name), spreads[name].median
