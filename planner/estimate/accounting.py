"""What a quantized DiT4SR costs in parameters, operations and bytes (method, Sec. 6).

Two ways of counting stand side by side and must not be mixed:

*Paper convention*, which reproduces the figures that Q-DiT4SR prints. Parameters are fp32
equivalents (a 4-bit weight is an eighth of a parameter). Operations are scaled by
``weight bits * activation bits`` over 32 * 32, and the low-rank branch is counted as if it too ran
at the low width. "FLOPs" are the same products over 16 * 16, for one forward pass.

*True figures*. Operations scaled in the same way, but the factor branch at the 16 x 16 bits it
runs in. Bytes of the pack as its format lays them out.

Both count the multiply-accumulates of block linears alone, by the paper's token rules
(``tokens_through``): one pass per step although guidance takes two, and layers included that the
forward pass computes in vain or not at all. Bytes, in contrast, leave inactive tensors out.

Everything follows from the configuration; the published numbers are in the tests, not here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from artifacts.codec.bitpack import packed_bytes
from artifacts.dit4sr.layout import POSITION_TABLE, block_linears, tensor_shapes
from schemas.errors import UsageError
from schemas.transformer_config import TransformerConfig

FULL_PRECISION_BITS = 32
"""Width of a full-precision weight or activation in the paper's parameters and operations."""
HALF_PRECISION_BITS = 16
"""Width of the factor branch, and of both operands in the paper's "FLOPs"."""
HALF_PRECISION_BYTES = 2
FLOAT32_BYTES = 4
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


def network_size(config: TransformerConfig) -> NetworkSize:
    """Count the parameters of ``config``, active or not."""
    linears = block_linears(config).values()
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
    """Multiply-accumulates of one forward pass through the block linears.

    Attributes:
        dense: of the layers themselves.
        per_rank: of one rank of factors beside every layer.
    """

    dense: int
    per_rank: int


def network_work(config: TransformerConfig, tokens: TokenCounts) -> NetworkWork:
    """Count one forward pass by the paper's token rules."""
    dense = per_rank = 0
    for name, shape in block_linears(config).items():
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
    work: NetworkWork, *, weight_bits: float, activation_bits: float, rank: int, steps: int
) -> float:
    """The paper's "Ops": every product, those of the factors too, at weight x activation bits."""
    macs = work.dense + rank * work.per_rank
    return _operations(macs * weight_bits * activation_bits, steps)


def paper_flops(
    work: NetworkWork, *, weight_bits: float, activation_bits: float, rank: int
) -> float:
    """The paper's "FLOPs" of one forward pass: MACs scaled by bits x bits over 16 x 16."""
    macs = work.dense + rank * work.per_rank
    return macs * weight_bits * activation_bits / HALF_PRECISION_BITS**2


def true_operations(
    work: NetworkWork, *, weight_bits: float, activation_bits: float, rank: int, steps: int
) -> float:
    """Bit operations in the unit of ``paper_operations``, with the factor branch at 16 x 16."""
    dense = work.dense * weight_bits * activation_bits
    factors = rank * work.per_rank * HALF_PRECISION_BITS**2
    return _operations(dense + factors, steps)


@dataclass(frozen=True)
class CheckpointBytes:
    """Tensor data of the source checkpoint in bf16.

    Attributes:
        parameters: all parameters, active or not.
        position_table: the sin-cos table that published checkpoints carry as well.
    """

    parameters: int
    position_table: int


def checkpoint_bytes(config: TransformerConfig) -> CheckpointBytes:
    """Size the checkpoint of ``config`` in bf16; file headers are not counted."""
    return CheckpointBytes(
        parameters=HALF_PRECISION_BYTES * network_size(config).parameters,
        position_table=HALF_PRECISION_BYTES * prod(tensor_shapes(config)[POSITION_TABLE]),
    )


@dataclass(frozen=True)
class PackBytes:
    """Tensor data of a pack's transformer, by kind; ``local_factors`` is an upper bound.

    Attributes:
        codes: packed codes of the residuals.
        scales: float32 step of every output channel.
        global_factors: SVD-G, bf16.
        local_factors: SVD-L, bf16. The block shapes depend on the weights; this is the whole
            budget of Eq. 7, ``r_L (out + in)`` numbers per layer.
        unquantized: every other active tensor in bf16, biases of quantized layers included. The
            position table is rebuilt by the reader and takes no room.
        rotation_signs: one bit per input feature, for every input width.
    """

    codes: int
    scales: int
    global_factors: int
    local_factors: int
    unquantized: int
    rotation_signs: int

    @property
    def total(self) -> int:
        """Sum of all kinds."""
        return (
            self.codes
            + self.scales
            + self.global_factors
            + self.local_factors
            + self.unquantized
            + self.rotation_signs
        )


def pack_bytes(
    config: TransformerConfig,
    weight_bits: Mapping[str, int],
    active_tensors: Collection[str],
    *,
    global_rank: int,
    local_rank: int,
    rotation_signs: bool = True,
) -> PackBytes:
    """Size the transformer of a pack before it is built.

    Args:
        config: the network.
        weight_bits: layer name -> bits of every quantized layer.
        active_tensors: parameters that the pack must hold (``network_probe``).
        global_rank: r_G; 0 goes without.
        local_rank: r_L; 0 goes without.
        rotation_signs: whether the rotation flips signs, which the pack then stores.
    """
    linears = block_linears(config)
    quantized = {name: linears[name] for name in weight_bits}
    shapes = parameter_shapes(config)
    plain = sum(
        prod(shapes[name])
        for name in active_tensors
        if name.removesuffix(".weight") not in quantized
    )
    widths = {shape.in_features for shape in quantized.values()}
    return PackBytes(
        codes=sum(
            packed_bytes(weight_bits[name], shape.out_features, shape.in_features)
            for name, shape in quantized.items()
        ),
        scales=FLOAT32_BYTES * sum(shape.out_features for shape in quantized.values()),
        global_factors=HALF_PRECISION_BYTES
        * sum(
            min(global_rank, shape.out_features, shape.in_features)
            * (shape.out_features + shape.in_features)
            for shape in quantized.values()
        ),
        local_factors=HALF_PRECISION_BYTES
        * local_rank
        * sum(shape.out_features + shape.in_features for shape in quantized.values()),
        unquantized=HALF_PRECISION_BYTES * plain,
        rotation_signs=sum(-(-width // 8) for width in widths) if rotation_signs else 0,
    )
