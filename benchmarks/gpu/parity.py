"""Kernels against plain torch on the device: integers exactly, floats within stated bounds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.codec.hadamard import Rotation
from runtime.backends.triton import plain
from runtime.backends.triton.finite_watch import number_of, raise_if_seen
from runtime.backends.triton.graphs import GraphedForward
from runtime.backends.triton.launch import prepare_tokens, product
from runtime.backends.triton.linear import LayerTensors, TritonLinear
from runtime.backends.triton.random_layers import BLOCK_GRIDS, RULE, full_layer, random_layer
from runtime.backends.triton.resident import Residency, doubled_offsets, make_resident
from runtime.backends.triton.rotation_plan import plan_for
from runtime.network.projection import project_all

RESIDENCIES: tuple[Residency, ...] = ("int8", "packed")
LAYER_BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-7}
"""float32: sums of 6144 terms. 16 bits: factors, thin vectors and result are rounded in turn."""
FOLDED_BOUND = 2**-7
"""``down`` rotated back is kept in bfloat16, whatever the input's dtype."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what was compared.
        passed: whether it held.
        detail: the figure it was judged by.
    """

    name: str
    passed: bool
    detail: str


def checks(device: torch.device, *, quick: bool) -> Iterator[Check]:
    """All comparisons, one after the other; an exception in one is a failure of that one."""
    for name, check in _cases(device, quick=quick):
        try:
            passed, detail = check()
        except Exception as error:  # a kernel that does not compile fails its own check
            passed, detail = False, f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        yield Check(name, passed, detail)


Result = tuple[bool, str]


def _cases(device: torch.device, *, quick: bool) -> Iterator[tuple[str, Callable[[], Result]]]:
    for weight_bits in range(2, 9):
        yield (
            f"integers, {weight_bits}-bit weight, 2 to 8-bit tokens, 77 x 384 -> 200",
            lambda w=weight_bits: _integers(device, w, range(2, 9), 77, 200, 384),
        )
    shapes = ((1536, 1536), (6144, 1536), (1536, 6144), (13824, 1536))
    for out_features, in_features in shapes:
        for tokens in (1, 2, 333, 2381) if quick else (1, 2, 17, 333, 1024, 2381, 4096, 4762):
            yield (
                f"integers, 4 and 5 bits, {tokens} x {in_features} -> {out_features}",
                lambda m=tokens, n=out_features, k=in_features: _large_integers(device, m, n, k),
            )
    sizes = (80, 192, 1536, 6144) if quick else (32, 40, 80, 144, 192, 768, 1024, 1536, 2048, 6144)
    for size in sizes:
        for dtype in (torch.bfloat16, torch.float32) if quick else tuple(LAYER_BOUNDS):
            yield (
                f"rotation and codes, {size}, {_name(dtype)}",
                lambda n=size, d=dtype: _rotation(device, n, d),
            )
    yield "codes of equal values, all bits", lambda: _codes(device)
    for out_features, in_features in BLOCK_GRIDS:
        for residency in RESIDENCIES:
            for dtype in (torch.bfloat16,) if quick else tuple(LAYER_BOUNDS):
                yield (
                    f"layer, {residency}, {in_features} -> {out_features}, {_name(dtype)}",
                    lambda n=out_features, k=in_features, r=residency, d=dtype: _layer(
                        full_layer("layer", n, k, device), r, d
                    ),
                )
    for weight_bits in (2, 3, 5, 6, 7, 8):
        yield (
            f"layer, packed, {weight_bits} bits, 1536 -> 1536",
            lambda w=weight_bits: _layer(
                full_layer("layer", 1536, 1536, device, bits=w), "packed", torch.bfloat16
            ),
        )
    for rank, grid in ((0, None), (5, None), (0, (1, 32)), (33, (64, 1)), (8, (16, 3))):
        yield (
            f"layer, rank {rank}, blocks {grid}",
            lambda r=rank, g=grid: _layer(
                random_layer("layer", 1536, 1536, rank=r, grid=g, device=device),
                "packed",
                torch.float32,
            ),
        )
    yield "layers that share an input, and parts of it", lambda: _shared(device)
    yield "a value that is not finite is named", lambda: _not_finite(device)
    yield "CUDA graphs replay the pass", lambda: _graphs(device)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _seeded(device: torch.device, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def _random_codes(device: torch.device, rows: int, columns: int, bits: int) -> Tensor:
    """Codes uint8; the first row saturated high, the last low."""
    generator = torch.Generator(device).manual_seed(bits)
    codes = torch.randint(2**bits, (rows, columns), generator=generator, device=device)
    codes[-1] = 0
    codes[0] = 2**bits - 1
    return codes.to(torch.uint8)


def _raw(
    codes: Tensor, bits: int, weight: Tensor, weight_bits: int, residency: Residency
) -> Tensor:
    centred = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    ones = torch.ones(max(len(codes), len(weight)), device=codes.device)
    return product(
        centred,
        ones[: len(codes)],
        centred.sum(1, dtype=torch.int32),
        make_resident(weight, weight_bits, residency),
        doubled_offsets(weight, weight_bits),
        ones[: len(weight)],
        raw=True,
    )


def _integers(
    device: torch.device, weight_bits: int, token_bits: range, m: int, n: int, k: int
) -> Result:
    weight = _random_codes(device, n, k, weight_bits)
    wrong = 0
    for bits in token_bits:
        codes = _random_codes(device, m, k, bits)
        expected = plain.doubled_product(codes, bits, weight, weight_bits)
        for residency in RESIDENCIES:
            found = _raw(codes, bits, weight, weight_bits, residency)
            wrong += int((found.double() != expected).sum())
    return wrong == 0, f"{wrong} of {2 * len(token_bits) * m * n} wrong"


def _large_integers(device: torch.device, m: int, n: int, k: int) -> Result:
    wrong = 0
    codes = _random_codes(device, m, k, 8)
    for bits in (4, 5):
        weight = _random_codes(device, n, k, bits)
        expected = plain.doubled_product(codes, 8, weight, bits)
        for residency in RESIDENCIES:
            wrong += int((_raw(codes, 8, weight, bits, residency).double() != expected).sum())
    return wrong == 0, f"{wrong} of {4 * m * n} wrong"


def _rotation(device: torch.device, size: int, dtype: torch.dtype) -> Result:
    """Rotated tokens and 8-bit codes against float64."""
    rotation = Rotation.for_size(size)
    x = (_seeded(device, 101, size) * torch.logspace(-2, 2, 101, device=device)[:, None]).to(dtype)
    codes, scale, _, rotated = prepare_tokens(
        x,
        plan_for(rotation, None, None, device),
        8,
        RULE,
        fault=number_of("rotation"),
        keep_rotated=True,
    )
    z = rotation.apply(x.double())
    if rotated is None:
        raise RuntimeError("no rotated tokens came back")
    error = relative_error(rotated, z)
    scale_error = relative_error(scale, plain.quantize(z, 8, RULE)[1])
    # Codes of the very z, so that only z's own error can move a code across a border.
    expected, _ = plain.quantize(z, 8, RULE, scale.double())
    difference = (codes.int() + 128 - expected.int()).abs()
    moved = float((difference > 0).float().mean())
    stored = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    passed = error < stored and scale_error < 1e-4 and int(difference.max()) <= 1 and moved < 2e-3
    return passed, f"z off by {error:.1e}, scale by {scale_error:.1e}, {moved:.1e} of codes by one"


def _codes(device: torch.device, tokens: int = 333) -> Result:
    """Without a rotation and by the largest magnitude nothing is summed: codes must be equal."""
    wrong = 0
    x = _seeded(device, tokens, 200) * torch.logspace(-3, 3, tokens, device=device)[:, None]
    x[5] = 0
    plan = plan_for(Rotation.identity(200), None, None, device)
    for bits in range(1, 9):
        codes, scale, _, _ = prepare_tokens(
            x, plan, bits, "absmax", fault=number_of("codes"), keep_rotated=False
        )
        expected, expected_scale = plain.quantize(x, bits, "absmax")
        wrong += int((codes.int() + 2 ** (bits - 1) != expected.int()).sum())
        wrong += int((scale != expected_scale).sum())
    return wrong == 0, f"{wrong} wrong"


def _layer(
    layer: LayerTensors, residency: Residency, dtype: torch.dtype, tokens: int = 237
) -> Result:
    """A whole layer on ragged tokens, some zero, some that saturate, read from a wider tensor."""
    out_features, in_features = layer.codes.shape
    device = layer.codes.device
    wide = _seeded(device, 2, tokens + 13, in_features).to(dtype)
    x = wide[:, 13:]
    x[0, 3] = 0
    x[1, 5, 7] = 900
    found = TritonLinear(layer, RULE, residency).to(device)(x, 5)
    flat = x.float().reshape(-1, in_features)
    expected = plain.forward(layer, flat, 5, RULE).view(2, -1, out_features)
    error = relative_error(found, expected)
    has_factors = layer.global_up is not None or layer.local_up is not None
    folded = residency == "int8" and has_factors
    bound = LAYER_BOUNDS[dtype] + (FOLDED_BOUND if folded else 0)
    if dtype == torch.float32 and not folded:
        bound += 2e-3  # a code that moves by one is a step of its own
    return error < bound and found.dtype == dtype, f"off by {error:.1e}, allowed {bound:.1e}"


def _shared(device: torch.device) -> Result:
    layers = [
        TritonLinear(random_layer(name, 256, 1536, grid=(4, 3), device=device), RULE, "packed")
        for name in "abc"
    ]
    x = _seeded(device, 2, 300, 1536).bfloat16()
    shared = project_all(layers, x, dict.fromkeys("abc", 4), first=(None, 77, None))
    apart = [layers[0](x, 4), layers[1](x[:, :77], 4), layers[2](x, 4)]
    equal = all(torch.equal(a, b) for a, b in zip(shared, apart, strict=True))
    return equal, "equal" if equal else "different"


def _not_finite(device: torch.device) -> Result:
    layer = TritonLinear(random_layer("named", 64, 1536, device=device), RULE, "int8")
    x = _seeded(device, 3, 1536)
    x[1, 9] = torch.nan
    try:
        layer(x, 4)
    except ValueError as error:
        raise_if_seen(device)
        return "layer named" in str(error), str(error)
    return False, "went unseen"


def _graphs(device: torch.device) -> Result:
    layer = TritonLinear(full_layer("graphed", 1536, 1536, device), RULE, "packed").to(device)

    def forward(x: Tensor, bits: dict[str, int]) -> Tensor:
        return layer(x, bits["graphed"])

    graphed = GraphedForward(forward)
    wrong = 0
    # A pass is captured when it comes for the second time.
    passes = ((5, 4), (5, 4), (5, 4), (9, 4), (9, 4), (5, 8), (5, 8), (9, 4), (5, 4))
    for seed, (tokens, bits) in enumerate(passes):
        x = _seeded(device, 2, tokens, 1536, seed=seed).bfloat16()
        wrong += not torch.equal(graphed(x, bits={"graphed": bits}), layer(x, bits))
    return wrong == 0, f"{wrong} of {len(passes)} differ"


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm; infinite where something is not finite."""
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    return float(error) if bool(torch.isfinite(error)) else float("inf")
