"""Quantized layers of random content in given shapes: values do not matter for time."""

import math

import torch
from torch import Tensor

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.block_shapes import expected_block
from artifacts.codec.hadamard import Rotation, random_signs
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.bench.workload import Ranks

WEIGHT_SIZE = 0.02
"""Root mean square of a weight, as transformers have it: activations keep their size."""


def random_layer(
    name: str,
    out_features: int,
    in_features: int,
    *,
    weight_bits: int,
    ranks: Ranks,
    generator: torch.Generator,
) -> QuantizedWeight:
    """A quantized layer with factors and bias, rotated as the method rotates.

    Args:
        name: the layer's name in the network.
        out_features: rows of the weight.
        in_features: its columns.
        weight_bits: of its codes, 1 ... 8.
        ranks: of its factors; local ones have the blocks of a weight without structure, because
            which ones a real layer gets depends on its weights.
        generator: of the values, on the CPU.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    codes = torch.randint(
        2**weight_bits, (out_features, in_features), generator=generator, dtype=torch.uint8
    )
    levels = math.sqrt((4**weight_bits - 1) / 12)  # root mean square of equally likely levels
    rotation = Rotation.for_size(in_features)
    factors: dict[str, Tensor] = {}
    rank = min(ranks.global_rank, out_features, in_features)
    if rank:
        factors["global_up"] = WEIGHT_SIZE * normal(out_features, rank)
        factors["global_down"] = normal(rank, in_features) / math.sqrt(rank)
    block = expected_block(out_features, in_features, ranks.local_rank)
    if block is not None:
        blocks = (out_features // block[0], in_features // block[1])
        factors["local_up"] = WEIGHT_SIZE * normal(*blocks, block[0])
        factors["local_down"] = normal(*blocks, block[1])
    return QuantizedWeight(
        name=name,
        out_features=out_features,
        in_features=in_features,
        weight_bits=weight_bits,
        codes=pack_codes(codes, weight_bits),
        scale=torch.full((out_features,), WEIGHT_SIZE / levels),
        rotation=rotation,
        signs=None if rotation.is_identity else random_signs(in_features, 0),
        bias=(WEIGHT_SIZE * normal(out_features)).bfloat16(),
        token_step=1.0,
        **{part: factor.bfloat16() for part, factor in factors.items()},
    )
