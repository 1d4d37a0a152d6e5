"""Quantized layers of random content in given shapes: values do not matter for time."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from artifacts.codec.bitpack import pack_codes
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
        ranks: of its factors; local ones are cut as finely as their budget allows.
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
    block = finest_block(out_features, in_features, ranks.local_rank)
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
        **{part: factor.bfloat16() for part, factor in factors.items()},
    )


@lru_cache(maxsize=64)
def finest_block(out_features: int, in_features: int, local_rank: int) -> tuple[int, int] | None:
    """Shape (s_o, s_i) of SVD-L's blocks: the most blocks that its budget pays for.

    A shape costs ``(out/s_o)(in/s_i)(s_o + s_i + 1)`` numbers, of which ``local_rank (out + in)``
    are allowed (Q-DiT4SR Eq. 7-9). Which of the affordable shapes a layer gets depends on its
    weights; this one costs most time. None where no shape is affordable.
    """
    allowed = local_rank * (out_features + in_features)
    counted = (
        ((out_features // rows) * (in_features // columns), (rows, columns))
        for rows in _divisors(out_features)
        for columns in _divisors(in_features)
    )
    affordable = [
        (blocks, shape) for blocks, shape in counted if blocks * (sum(shape) + 1) <= allowed
    ]
    return max(affordable)[1] if affordable else None


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
