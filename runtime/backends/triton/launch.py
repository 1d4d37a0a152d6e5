"""Kernels with tensors: shapes and strides in, results out. The one module that imports kernels."""

# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

import torch
import triton
from torch import Tensor

from artifacts.codec.gaussian_quantizer import step_rule
from runtime.backends.triton.device import capability, multiprocessors
from runtime.backends.triton.factors import Factors, FactorShape
from runtime.backends.triton.low_rank_kernel import low_rank_kernel
from runtime.backends.triton.prepare_kernel import prepare_kernel
from runtime.backends.triton.product_kernel import product_kernel
from runtime.backends.triton.resident import ResidentCodes
from runtime.backends.triton.rotation_plan import RotationPlan, padded
from runtime.backends.triton.tile_table import config_for
from runtime.backends.triton.tile_table_file import LOW_RANK, Config
from runtime.backends.triton.token_rows import TokenRows, token_rows
from runtime.network.finite_watch import watch_flag
from schemas.manifest import ScaleRule

_ROUNDING = {"enable_fp_fusion": False}
"""Products are rounded before they are added, as the reference rounds them."""


def prepare_tokens(
    x: Tensor,
    plan: RotationPlan,
    bits: int,
    rule: ScaleRule,
    *,
    token_step: float = 1.0,
    fault: int,
    keep_rotated: bool,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Smooth, rotate and quantize ``x`` [..., size].

    Args:
        x: tokens, of any float dtype.
        plan: smoothing, signs and rotation.
        bits: of a code, 1 ... 8.
        rule: how a token's scale is found.
        token_step: the layer's factor on it.
        fault: what to leave in the device's `watch_flag` where a scale is not finite.
        keep_rotated: also return the rotated tokens.
        config: tile sizes; None for the table's.

    Returns:
        Codes minus 2^(bits - 1), int8 [..., size]; scales float32 [...]; sums of those codes int32
        [...]; rotated tokens in the dtype of ``x``, or None.
    """
    rows = token_rows(x)
    lead = x.shape[:-1]
    size = plan.size
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scale = torch.empty(lead, dtype=torch.float32, device=x.device)
    sums = torch.empty(lead, dtype=torch.int32, device=x.device)
    rotated = torch.empty(x.shape, dtype=x.dtype, device=x.device) if keep_rotated else None
    if not rows.total:
        return codes, scale, sums, rotated
    level = capability(x.device)
    if config is None:
        config = config_for(level, "prepare", rows.total, size, size)
    tokens_at_once = plan.tokens_at_once(config["elements"])
    blocks = triton.cdiv(rows.total, tokens_at_once)
    step = step_rule(rule, bits, token_step)
    prepare_kernel[(min(blocks, config["programs"] * multiprocessors(x.device)),)](
        rows.values,
        plan.gain,
        plan.divisor,
        plan.left,
        plan.right,
        codes,
        scale,
        sums,
        rotated,
        watch_flag(x.device),
        rows.total,
        rows.tokens,
        rows.batch_stride,
        rows.row_stride,
        size,
        plan.norm,
        step.of_rms,
        step.of_peak,
        2 ** (bits - 1),
        fault,
        L=plan.rows,
        R=plan.columns,
        LP=plan.padded_rows,
        RP=plan.padded_columns,
        BM=tokens_at_once,
        RMS=step.of_rms > 0,
        PEAK=step.of_peak > 0,
        INPUT_SPLITS=_parts(x.dtype, plan),
        SPLITS=3 if x.dtype == torch.float32 else 2,
        NATIVE=level > 0,
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        maxnreg=config["maxnreg"],
        **_ROUNDING,
    )
    return codes, scale, sums, rotated


def low_rank_activations(values: Tensor, factors: Factors, config: Config | None = None) -> Tensor:
    """Tokens [..., in] times the factors' ``down`` -> [M, width], in the dtype of ``values``.

    Args:
        values: tokens as they come for folded factors, rotated ones for the compact form.
        factors: SVD-G and SVD-L.
        config: tile sizes of the compact form's kernel; None for the table's.

    Returns:
        Low-rank activations. Columns from ``factors.shape.rank`` on are padding, not to be read.
    """
    if factors.folded:
        return factors.folded_product(values)
    rows, shape = token_rows(values), factors.shape
    in_features = factors.down.shape[1]
    activations = torch.empty(rows.total, shape.width, dtype=values.dtype, device=values.device)
    if not rows.total:
        return activations
    if config is None:
        config = config_for(
            capability(values.device), LOW_RANK, rows.total, shape.width, in_features
        )
    low_rank_kernel[(triton.cdiv(rows.total, config["BM"]),)](
        rows.values,
        factors.down,
        factors.scale,
        activations,
        rows.total,
        rows.tokens,
        rows.batch_stride,
        rows.row_stride,
        in_features,
        shape.width,
        in_features // max(shape.columns, 1),
        RG=shape.global_rank,
        P=shape.rows,
        Q=max(shape.columns, 1),
        RGP=padded(shape.global_rank) if shape.global_rank else 16,
        PP=padded(shape.rows) if shape.rows else 16,
        NATIVE=capability(values.device) > 0,
        **config,
        **_ROUNDING,
    )
    return activations


def product(
    codes: Tensor,
    scale: Tensor,
    sums: Tensor,
    weight: ResidentCodes,
    offsets: Tensor,
    step: Tensor,
    *,
    factors: Factors | None = None,
    low_rank: Tensor | None = None,
    bias: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    raw: bool = False,
    config: Config | None = None,
) -> Tensor:
    """Codes times weight, then scales, factors and bias -> ``dtype`` [..., out].

    Args:
        codes: as `prepare_tokens` gives them, or the first tokens of those.
        scale: likewise.
        sums: likewise.
        weight: the weight's codes.
        offsets: int32 [out] of `resident.doubled_offsets`.
        step: the weight's scale, float32 [out].
        factors: SVD-G and SVD-L, or None without.
        low_rank: what `low_rank_activations` made of the tokens; None without factors.
        bias: [out], or None.
        dtype: of the result.
        raw: return the exact doubled product instead, int32.
        config: tile sizes; None for the table's.
    """
    rows = token_rows(codes)
    out_features, in_features = len(step), codes.shape[-1]
    y = torch.empty(
        (*codes.shape[:-1], out_features),
        dtype=torch.int32 if raw else dtype,
        device=codes.device,
    )
    if not rows.total:
        return y
    scale, sums, stat_batch = _beside(rows, scale, sums)
    level = capability(codes.device)
    if config is None:
        kernel = "product8" if weight.high_bits == 8 else "product_packed"
        config = config_for(level, kernel, rows.total, out_features, in_features)
    config = dict(config)
    low_length = 0 if weight.low is None else weight.low.shape[1]
    config["BK"] = tile_length(config["BK"], low_length or weight.slice_length)
    shape = factors.shape if factors is not None and low_rank is not None else FactorShape(0, 0, 0)
    up = factors.up if factors is not None else None
    tiles = triton.cdiv(rows.total, config["BM"]) * triton.cdiv(out_features, config["BN"])
    product_kernel[(tiles,)](
        rows.values,
        scale,
        sums,
        weight.high,
        weight.low,
        offsets,
        step,
        low_rank,
        up,
        bias,
        y,
        rows.total,
        out_features,
        in_features,
        rows.tokens,
        rows.batch_stride,
        rows.row_stride,
        stat_batch,
        weight.slice_length,
        low_length,
        shape.width,
        out_features // max(shape.rows, 1),
        HIGH=weight.high_bits,
        LOW=weight.low_bits,
        SUM_FACTOR=weight.sum_factor,
        RG=shape.global_rank,
        Q=shape.columns,
        RGP=padded(shape.global_rank) if shape.global_rank else 16,
        QP=padded(shape.columns) if shape.columns else 16,
        EVEN=8 // weight.high_bits * weight.slice_length == in_features,
        NATIVE=level > 0,
        RAW=raw,
        **config,
        **_ROUNDING,
    )
    return y


def _beside(rows: TokenRows, scale: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, int]:
    """Scales and sums so that one stride from batch to batch addresses both; and that stride."""
    if rows.batch_stride:
        scale, sums = scale.reshape(-1, rows.tokens), sums.reshape(-1, rows.tokens)
        if scale.stride() == sums.stride() and scale.stride(1) == 1:
            return scale, sums, scale.stride(0)
    return scale.contiguous(), sums.contiguous(), rows.tokens if rows.batch_stride else 0


def _parts(dtype: torch.dtype, plan: RotationPlan) -> int:
    """bfloat16 parts that hold all bits of the preparing kernel's first operand."""
    if plan.divisor is not None:
        return 3
    return {torch.bfloat16: 1, torch.float16: 2}.get(dtype, 3)


def tile_length(wanted: int, slice_length: int) -> int:
    """The largest power of two up to ``wanted`` that divides a slice of a row."""
    return min(wanted, slice_length & -slice_length)
