"""Refreshes the table of tile sizes: all plausible ones for the network's shapes, timed."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.layers import RULE, full_layer
from benchmarks.gpu.timing import captured, interleaved
from runtime.backends.triton.device import capability
from runtime.backends.triton.finite_watch import number_of
from runtime.backends.triton.launch import prepare_tokens, product, thin_vectors
from runtime.backends.triton.linear import TritonLinear
from runtime.backends.triton.rotation_plan import plan_for
from runtime.backends.triton.tuning import TABLE, Config, m_bucket, row_name

SHAPES = ((1536, 1536), (6144, 1536), (1536, 6144), (13824, 1536), (9216, 1536))
TOKENS = {2: SHAPES[3:], 666: SHAPES[:3], 2048: SHAPES[:3], 4096: SHAPES[:3]}
"""Tokens of a step at 512x512 with two guidance branches: conditioning, text, one stream, both.
Later rows of one bucket replace earlier ones."""
BITS = 4


def tune(
    device: torch.device,
    *,
    rounds: int,
    until: Callable[[], bool],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Time configurations and write the best ones into the project's table, after every shape.

    Args:
        device: where.
        rounds: times per configuration.
        until: asked after every shape; True ends it early.
        note: told what is going on.

    Returns:
        The rows that were written.
    """
    level = capability(device)
    written: dict[str, Any] = {}
    for tokens, shapes in reversed(TOKENS.items()):
        for n, k in shapes:
            for kernel, run in _kernels(device, tokens, n, k).items():
                width = n if kernel.startswith("product") else k
                name = row_name(level, kernel, m_bucket(tokens), width, k)
                if kernel == "thin":
                    name = row_name(level, kernel, m_bucket(tokens), None, k)
                if name in written:
                    continue
                best = _best(run, kernel, tokens, rounds)
                if best is not None:
                    written[name] = best[0]
                    note(f"{name}: {best[1]:.1f} us {best[0]}")
            _write(TABLE, written)
            if until():
                return written
    return written


def _kernels(
    device: torch.device, tokens: int, n: int, k: int
) -> dict[str, Callable[[Config], object]]:
    """Every kernel as a function of its configuration."""
    layer = full_layer("tuned", n, k, device)
    x = torch.randn(tokens, k, device=device).bfloat16()
    plan = plan_for(layer.rotation, layer.signs, None, device)
    runs: dict[str, Callable[[Config], object]] = {
        "prepare": lambda config: prepare_tokens(
            x, plan, BITS, RULE, fault=number_of("tuned"), keep_rotated=True, config=config
        )
    }
    for kernel, residency in (("product8", "int8"), ("product_packed", "packed")):
        tuned = TritonLinear(layer, RULE, residency).to(device)
        prepared = tuned.prepare(x, BITS)
        factors = tuned.factors
        if factors is None or prepared.codes is None or prepared.scale is None:
            raise RuntimeError("the layer to tune with has no factors")
        thin = factors.thin(prepared.values)
        runs[kernel] = lambda config, layer=tuned, one=prepared, thin=thin: product(
            one.codes,
            one.scale,
            one.sums,
            layer.resident_codes(),
            layer.offsets,
            layer.scale,
            factors=layer.factors,
            thin=thin,
            bias=layer.bias,
            dtype=torch.bfloat16,
            config=config,
        )
        if residency == "packed":
            runs["thin"] = lambda config, one=prepared, f=factors: thin_vectors(
                one.values, f.down, f.shape, config
            )
    return runs


_FEW_TOKENS = ((64, 16), (128, 16), (64, 64), (128, 64))
_MANY_TOKENS = ((64, 128), (128, 64), (128, 128), (64, 256), (128, 256), (256, 128))
"""Channels and tokens of a tile."""


def configurations(kernel: str, tokens: int) -> Iterator[dict[str, int]]:
    """What is worth trying."""
    if kernel == "prepare":
        for elements, warps in itertools.product((2048, 4096, 8192, 16384), (4, 8, 16)):
            yield {"elements": elements, "num_warps": warps, "num_stages": 1}
    elif kernel == "thin":
        for bm, bk, stages in itertools.product((16, 32, 64), (64, 128), (2, 3, 4)):
            yield {"BM": bm, "BK": bk, "num_warps": 4, "num_stages": stages}
    else:
        tiles = _FEW_TOKENS if tokens <= 64 else _MANY_TOKENS
        for (bn, bm), bk, stages in itertools.product(tiles, (64, 128), (3, 4)):
            # Sums of a large tile would fill the registers of four warps.
            warps = 8 if bn * bm >= 128 * 128 else 4
            sizes = {"BN": bn, "BM": bm, "BK": bk, "GROUP": 8}
            yield {**sizes, "num_warps": warps, "num_stages": stages}


def _best(
    run: Callable[[Config], object], kernel: str, tokens: int, rounds: int
) -> tuple[dict[str, int], float] | None:
    """The fastest configuration that runs, and its time in microseconds."""
    works = {}
    for config in configurations(kernel, tokens):
        try:
            works[json.dumps(config)] = captured([lambda config=config: run(config)], repeats=4)
        except Exception:  # too much shared memory, or no such tile
            torch.cuda.synchronize()
    if not works:
        return None
    spreads = interleaved(works, rounds=rounds, calls_each=4)
    name = min(spreads, key=lambda one: spreads[one].median)
    return json.loads(name), spreads[name].median


def _write(table: Path, rows: dict[str, Any]) -> None:
    """Replace ``rows`` in the table, one row per line."""
    merged = {**json.loads(table.read_text()), **rows}
    lines = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in merged.items())
    table.write_text("{\n" + ",\n".join(lines) + "\n}\n")
