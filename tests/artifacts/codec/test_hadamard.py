import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.codec.hadamard import (
    Rotation,
    pack_signs,
    paley_matrix,
    random_signs,
    sylvester_matrix,
    unpack_signs,
)

SIZES = {
    1: ("sylvester", 1), 2: ("sylvester", 2), 64: ("sylvester", 64), 2048: ("sylvester", 2048),
    12: ("paley12", 12), 24: ("paley12", 24), 192: ("paley12", 192), 768: ("paley12", 768),
    1536: ("paley12", 1536), 20: ("paley20", 20), 40: ("paley20", 40), 320: ("paley20", 320),
    112: ("block", 16), 400: ("block", 16), 576: ("block", 64), 96 * 5: ("block", 32),
    18: ("none", 1), 56: ("none", 1), 7: ("none", 1),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_construction_by_size(size):
    rotation = Rotation.for_size(size)
    assert (rotation.construction, rotation.block_size) == SIZES[size]


def test_every_size_of_the_published_network_is_fully_mixed():
    assert Rotation.for_size(1536) == Rotation(1536, "paley12", 1536)
    assert Rotation.for_size(6144) == Rotation(6144, "paley12", 6144)


@pytest.mark.parametrize("order", [12, 20])
def test_paley_is_a_hadamard_matrix(order):
    matrix = paley_matrix(order)
    assert set(matrix.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))
    # I + C with C skew-symmetric.
    assert torch.equal(matrix + matrix.T, 2 * torch.eye(order, dtype=torch.float64))


def test_golden_rows():
    assert sylvester_matrix(4).tolist() == [
        [1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1],
    ]  # fmt: skip
    # Squares mod 11 are 1 3 4 5 9. Row 1 is i = 0: chi(-j), and -1 is not a square.
    assert paley_matrix(12)[0].tolist() == [1] * 12
    assert paley_matrix(12)[1].tolist() == [-1, 1, -1, 1, -1, -1, -1, 1, 1, 1, -1, 1]


@pytest.mark.parametrize("size", [s for s in SIZES if s <= 768])
def test_orthonormal_and_fast_equals_dense(size):
    rotation = Rotation.for_size(size)
    dense = rotation.dense()
    eye = torch.eye(size, dtype=torch.float64)
    # Entries are ±1/sqrt(n): n products, each rounded to 2^-53.
    torch.testing.assert_close(dense @ dense.T, eye, rtol=0, atol=1e-13)
    x = torch.randn(2, 3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    signs = random_signs(size, 3)
    torch.testing.assert_close(rotation.apply(x), x @ dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(rotation.apply(x, signs), (x * signs) @ dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(rotation.invert(x), x @ dense.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(rotation.invert(x, signs), (x @ dense.T) * signs, rtol=0, atol=1e-12)


def test_kronecker_index_is_paley_major():
    expected = torch.kron(paley_matrix(12), sylvester_matrix(4)) / 48**0.5
    torch.testing.assert_close(Rotation.for_size(48).dense(), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), st.integers(0, 2**31))
def test_rotated_layer_equals_the_layer(size, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, size, dtype=torch.float64, generator=generator)
    weight = torch.randn(5, size, dtype=torch.float64, generator=generator)
    rotation, signs = Rotation.for_size(size), random_signs(size, seed)
    z, rotated = rotation.apply(x, signs), rotation.apply(weight, signs)
    torch.testing.assert_close(z @ rotated.T, x @ weight.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rotation.invert(z, signs), x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_computed_in_float32(dtype, computed):
    x = torch.randn(3, 1536, generator=torch.Generator().manual_seed(2)).to(dtype)
    rotated = Rotation.for_size(1536).apply(x)
    assert rotated.dtype == computed
    exact = Rotation.for_size(1536).apply(x.double())
    # Three factors of order at most 16 in float32: errors of a few units of 2^-24.
    torch.testing.assert_close(rotated.double(), exact, rtol=0, atol=1e-5)


def test_any_leading_shape_and_strides():
    rotation = Rotation.for_size(24)
    x = torch.randn(24, 5, 2, dtype=torch.float64)
    turned = x.permute(2, 1, 0)
    torch.testing.assert_close(rotation.apply(turned), turned @ rotation.dense())
    assert rotation.apply(torch.zeros(0, 24)).shape == (0, 24)
    assert rotation.apply(x[:, 0, 0]).shape == (24,)


def test_an_outlier_is_spread_evenly():
    x = torch.zeros(1536, dtype=torch.float64)
    x[77] = 1536**0.5
    expected = torch.ones(1536, dtype=torch.float64)
    torch.testing.assert_close(Rotation.for_size(1536).apply(x).abs(), expected)


@pytest.mark.parametrize(
    ("size", "construction", "block"),
    [
        (0, "none", 1), (6, "sylvester", 6), (24, "paley12", 12), (36, "paley12", 36),
        (24, "paley20", 24), (48, "block", 5), (48, "block", 32), (8, "sylvester", 4),
        (8, "none", 8),
    ],
)  # fmt: skip
def test_impossible_rotations_are_refused(size, construction, block):
    with pytest.raises(ValueError, match=f"no {construction} rotation of size {size}"):
        Rotation(size, construction, block)


def test_wrong_length_is_refused():
    with pytest.raises(ValueError, match="vectors of 11 for a rotation of size 12"):
        Rotation.for_size(12).apply(torch.zeros(2, 11))


def test_signs_are_the_same_on_every_platform():
    # The first words of PCG64 seeded with (7, 12) and (0, 70), as drawn when this was written.
    assert random_signs(12, 7).tolist() == [-1, -1, -1, 1, -1, -1, -1, -1, 1, 1, -1, 1]
    assert pack_signs(random_signs(70, 0)).numpy().tobytes().hex() == "8a1dfb7bc0bff7ca23"
    assert not torch.equal(random_signs(64, 0), random_signs(128, 0)[:64])
    with pytest.raises(ValueError, match="non-negative"):
        random_signs(8, -1)


def test_signs_pack_low_end_first():
    signs = torch.tensor([-1, 1, 1, 1, 1, 1, 1, 1, 1, -1.0])
    assert pack_signs(signs).tolist() == [1, 2]
    assert torch.equal(unpack_signs(torch.tensor([1, 2], dtype=torch.uint8), 10), signs)


def test_wrong_signs_are_refused():
    with pytest.raises(ValueError, match=r"\+1 and -1"):
        pack_signs(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"uint8 \[2\]"):
        unpack_signs(torch.zeros(3, dtype=torch.uint8), 10)
    with pytest.raises(ValueError, match="beyond the last"):
        unpack_signs(torch.tensor([0, 4], dtype=torch.uint8), 10)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(0, 2**40))
def test_signs_come_back(size, seed):
    signs = random_signs(size, seed)
    assert signs.dtype == torch.float32
    assert torch.equal(unpack_signs(pack_signs(signs), size), signs)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 1536, 6144, 400])
def test_cuda_equals_cpu(size):
    x = torch.randn(7, size, dtype=torch.float64)
    rotation, signs = Rotation.for_size(size), random_signs(size, 1)
    on_device = rotation.apply(x.cuda(), signs.cuda()).cpu()
    torch.testing.assert_close(on_device, rotation.apply(x, signs), rtol=0, atol=1e-12)
