"""What a quantized DiT4SR costs in parameters, operations and bytes (method, Sec. 6).

Two ways of counting stand side by side and must not be mixed:

*Paper convention*, which reproduces the figures that Q-DiT4SR prints. Parameters are fp32
equivalents (a 4-bit weight is an eighth of a parameter). Operations are scaled by
``weight bits * activation bits`` over 32 * 32, and the low-rank branch is counted as if it too ran
at the low width. "FLOPs" are the same products over 16 * 16, for one forward pass.

*True figures*. Operations scaled in the same way, but the factor branch at the 16 x 16 bits it
runs in. True bytes are counted in `planner.estimate.stored_bytes`.

Both count the multiply-accumulates of block linears alone, by the paper's token rules
(``tokens_through``): one pass per step although guidance takes two, and layers included that the
forward pass computes in vain or not at all. Bytes, in contrast, leave inactive tensors out. A layer
that the user keeps in 16 bits counts as full precision in the paper's convention, like everything
else that is not quantized, and as 16 x 16 bits truly.

Everything follows from the configuration; the published numbers are in the tests, not here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from artifacts.dit4sr.layout import POSITION_TABLE, block_linears, tensor_shapes
from schemas.errors import UsageError
from schemas.transformer_config import TransformerConfig

FULL_PRECISION_BITS = 32
"""Width of a full-precision weight or activation in the paper's parameters and operations."""
HALF_PRECISION_BITS = 16
"""Width of the factor branch and of kept layers, and the unit of the paper's "FLOPs"."""
VAE_FACTOR = 8
"""Image pixels per latent pixel, along one side (Stable Diffusion 3)."""


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of each stream in one forward pass."""

    image: int
    control: int
    text: int


def count_tokens(
    config: TransformerConfig, *, resolution_px: int = 512, text_tokens: int = 333
) -> TokenCounts:
    """Count the tokens of a square image with sides of ``resolution_px`` pixels.

    Raises:
        UsageError: the image does not divide into latent pixels and patches, or no token is left.
    """
    pixels_per_token = VAE_FACTOR * config.patch_size
    if resolution_px < pixels_per_token or resolution_px % pixels_per_token:
        nearest = max(1, round(resolution_px / pixels_per_token)) * pixels_per_token
        raise UsageError(
            f"an image of {resolution_px} px does not divide into tokens of {pixels_per_token} px",
            hint=f"the nearest size that does is {nearest} px",
        )
    if text_tokens < 0:
        raise UsageError(f"{text_tokens} text tokens", hint="give 0 or more")
    per_stream = (resolution_px // pixels_per_token) ** 2
    return TokenCounts(image=per_stream, control=per_stream, text=text_tokens)


def tokens_through(name: str, tokens: TokenCounts) -> int:
    """Tokens that the paper counts through the block linear called ``name``."""
    _, _, module, *layer = name.split(".")  # transformer_blocks, index, module, layer...
    if module in ("norm1", "norm1_context"):
        return 1  # modulation reads the conditioning vector, one per image
    if layer[0].startswith("add_") or layer[0] == "to_add_out":
        return 0 if module == "attn2" else tokens.text  # the second attention sees no text
    if module == "ff_context":
        return tokens.text
    if layer[0].endswith("_control"):
        return tokens.control
    if layer[0] == "to_out":
        return tokens.image
    return tokens.image + tokens.control


@dataclass(frozen=True)
class NetworkSize:
    """Parameters of a network; the position table, a buffer, is not among them.

    Attributes:
        parameters: all of them.
        linears: number of block linears, the layers that get quantized.
        linear_parameters: weights of the block linears, without biases.
        linear_sides: sum of out_features + in_features; what one rank of factors costs.
    """

    parameters: int
    linears: int
    linear_parameters: int
    linear_sides: int

    @property
    def other_parameters(self) -> int:
        """What is never quantized: embeddings, norms, biases, convolutions, output layers."""
        return self.parameters - self.linear_parameters


def parameter_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, without the position table."""
    shapes = tensor_shapes(config)
    del shapes[POSITION_TABLE]
    return shapes


def network_size(config: TransformerConfig, kept: Collection[str] = ()) -> NetworkSize:
    """Count the parameters of ``config``, active or not.

    Args:
        config: the network.
        kept: names of block linears that count as any other parameter, because they do not get
            quantized.
    """
    linears = [shape for name, shape in block_linears(config).items() if name not in kept]
    return NetworkSize(
        parameters=sum(prod(shape) for shape in parameter_shapes(config).values()),
        linears=len(linears),
        linear_parameters=sum(shape.out_features * shape.in_features for shape in linears),
        linear_sides=sum(shape.out_features + shape.in_features for shape in linears),
    )


def paper_parameters(size: NetworkSize, weight_bits: float, rank: int) -> float:
    """fp32-equivalent parameters: rest + N * bits / 32 + rank * sum(out + in).

    Args:
        size: the network.
        weight_bits: mean bits of a block linear's weight; 32 for full precision.
        rank: r_G + r_L, 0 without factors.
    """
    quantized = size.linear_parameters * weight_bits / FULL_PRECISION_BITS
    return size.other_parameters + quantized + rank * size.linear_sides


@dataclass(frozen=True)
class NetworkWork:
    """Multiply-accumulates of one forward pass through block linears.

    Attributes:
        dense: of the layers themselves.
        per_rank: of one rank of factors beside every layer.
    """

    dense: int
    per_rank: int


def network_work(
    config: TransformerConfig, tokens: TokenCounts, kept: Collection[str] = ()
) -> NetworkWork:
    """Count one forward pass by the paper's token rules, without the layers in ``kept``."""
    dense = per_rank = 0
    for name, shape in block_linears(config).items():
        if name in kept:
            continue
        count = tokens_through(name, tokens)
        dense += count * shape.out_features * shape.in_features
        per_rank += count * (shape.out_features + shape.in_features)
    return NetworkWork(dense, per_rank)


def _operations(bit_products: float, steps: int) -> float:
    """Scale ``MACs * bits * bits`` to full-precision operations; 2 operations are one MAC."""
    return 2 * steps * bit_products / FULL_PRECISION_BITS**2


def full_precision_operations(work: NetworkWork, *, steps: int) -> float:
    """Operations of ``steps`` forward passes of the unquantized network."""
    return _operations(work.dense * FULL_PRECISION_BITS**2, steps)


def paper_operations(
    work: NetworkWork,
    *,
    weight_bits: float,
    activation_bits: float,
    rank: int,
    steps: int,
    kept_macs: int = 0,
) -> float:
    """The paper's "Ops": every product, those of the factors too, at weight x activation bits.

    Args:
        work: of the quantized layers.
        weight_bits: mean bits of a weight.
        activation_bits: mean bits of an activation.
        rank: r_G + r_L, 0 without factors.
        steps: forward passes.
        kept_macs: multiply-accumulates of kept layers in one pass.
    """
    macs = work.dense + rank * work.per_rank
    kept = kept_macs * FULL_PRECISION_BITS**2
    return _operations(macs * weight_bits * activation_bits + kept, steps)


def paper_flops(
    work: NetworkWork,
    *,
    weight_bits: float,
    activation_bits: float,
    rank: int,
    kept_macs: int = 0,
) -> float:
    """The paper's "FLOPs" of one forward pass: MACs scaled by bits x bits over 16 x 16.

    Arguments as in `paper_operations`.
    """
    macs = work.dense + rank * work.per_rank
    kept = kept_macs * FULL_PRECISION_BITS**2
    return (macs * weight_bits * activation_bits + kept) / HALF_PRECISION_BITS**2


def true_operations(
    work: NetworkWork,
    *,
    weight_bits: float,
    activation_bits: float,
    rank: int,
    steps: int,
    kept_macs: int = 0,
) -> float:
    """Bit operations in the unit of ``paper_operations``: factors and kept layers at 16 x 16.

    Arguments as in `paper_operations`.
    """
    dense = work.dense * weight_bits * activation_bits
    in_half_precision = rank * work.per_rank + kept_macs
    return _operations(dense + in_half_precision * HALF_PRECISION_BITS**2, steps)
