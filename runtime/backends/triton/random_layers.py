"""Random quantized layers in the shapes of DiT4SR: values do not matter for time."""

import torch

from artifacts.codec.hadamard import Rotation, random_signs
from runtime.backends.triton.linear import LayerTensors
from runtime.backends.triton.scale_rule import ScaleRule

RULE: ScaleRule = "gaussian"
GLOBAL_RANK = 32
BLOCK_GRIDS = {
    (1536, 1536): (8, 6),
    (6144, 1536): (12, 6),
    (1536, 6144): (6, 12),
    (9216, 1536): (18, 6),
    (13824, 1536): (36, 4),
}
"""Block rows and columns of SVD-L by (out, in): the most blocks that local rank 8 pays for."""


def random_layer(
    name: str,
    out_features: int,
    in_features: int,
    *,
    bits: int = 4,
    rank: int = GLOBAL_RANK,
    grid: tuple[int, int] | None = None,
    rotation: Rotation | None = None,
    bias: bool = True,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> LayerTensors:
    """A layer whose factor branches are about as large as its residual.

    Args:
        name: the layer's name.
        out_features: rows of the weight.
        in_features: its columns.
        bits: of its codes.
        rank: of SVD-G; 0 for none.
        grid: block rows and columns of SVD-L, or None for none.
        rotation: None for the one that the method gives the size.
        bias: with one.
        device: where its tensors are made.
        seed: of the random numbers.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    rotation = rotation or Rotation.for_size(in_features)
    codes = torch.randint(2**bits, (out_features, in_features), generator=generator, device=device)
    size = in_features**-0.5
    factors: dict[str, torch.Tensor] = {}
    if rank:
        factors["global_up"] = normal(out_features, rank) * rank**-0.5
        factors["global_down"] = normal(rank, in_features) * size
    if grid is not None:
        rows, columns = grid
        factors["local_up"] = normal(rows, columns, out_features // rows) * columns**-0.5
        factors["local_down"] = normal(rows, columns, in_features // columns) * size
    return LayerTensors(
        name=name,
        codes=codes.to(torch.uint8),
        weight_bits=bits,
        scale=(normal(out_features).abs() + 0.5) * size * 2 ** (1 - bits),
        rotation=rotation,
        signs=None if rotation.is_identity else random_signs(in_features, 0).to(device),
        bias=normal(out_features).bfloat16() if bias else None,
        input_key=in_features,
        **{part: factor.bfloat16() for part, factor in factors.items()},
    )


def full_layer(
    name: str, out_features: int, in_features: int, device: torch.device, *, bits: int = 4
) -> LayerTensors:
    """A layer of the network with factors of ranks 32 and 8."""
    grid = BLOCK_GRIDS[out_features, in_features]
    return random_layer(name, out_features, in_features, bits=bits, grid=grid, device=device)
