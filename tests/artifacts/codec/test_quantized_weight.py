import dataclasses

import pytest
import torch

from artifacts.codec.hadamard import Rotation
from artifacts.codec.layer_parts import expected_tensors
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.files.safetensors_io import TensorSpec
from schemas.manifest import LayerRecord
from tests.artifacts.make_pack import random_weight


def literal_decode(layer: QuantizedWeight) -> torch.Tensor:
    """The format's sentence, element by element and with the dense matrix."""
    codes = layer.unpacked_codes()
    half = (2**layer.weight_bits - 1) / 2
    rotated = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64)
    for o in range(layer.out_features):
        for i in range(layer.in_features):
            value = (int(codes[o, i]) - half) * float(layer.scale[o])
            for r in range(layer.global_rank):
                scale = 1 if layer.global_scale is None else float(layer.global_scale[r])
                value += scale * float(layer.global_up[o, r]) * float(layer.global_down[r, i])
            if layer.local_block is not None:
                rows, columns = layer.local_block
                p, q = o // rows, i // columns
                scale = 1 if layer.local_scale is None else float(layer.local_scale[p, q])
                up = float(layer.local_up[p, q, o % rows])
                value += scale * up * float(layer.local_down[p, q, i % columns])
            rotated[o, i] = value
    weight = rotated @ layer.rotation.dense().T
    if layer.signs is not None:
        weight = weight @ torch.diag(layer.signs.double())
    return weight if layer.smoothing is None else weight @ torch.diag(1 / layer.smoothing.double())


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4},
        {"bits": 3, "rank": 0},
        {"bits": 4, "factor_bits": 8},
        {"bits": 2, "factor_bits": 8, "block": None},
        {"bits": 7, "block": None},
        {"bits": 1, "rank": 0, "block": None, "signs": False},
        {"bits": 4, "smoothing": True},
    ],
)
@pytest.mark.parametrize(("out_features", "in_features"), [(8, 24), (12, 40), (4, 56)])
def test_decoding_says_what_the_format_says(out_features, in_features, options):
    layer = random_weight("l", out_features, in_features, seed=3, **options)
    expected = literal_decode(layer)
    torch.testing.assert_close(layer.decode(), expected, rtol=0, atol=1e-14)
    # float32: values of about 0.1, sums of at most 40 terms of 2^-24 relative error each.
    assert layer.decode(torch.float32).dtype == torch.float32
    torch.testing.assert_close(layer.decode(torch.float32).double(), expected, rtol=0, atol=2e-6)


def test_rotated_branches_add_up():
    layer = random_weight("l", 8, 24)
    total = layer.residual(torch.float64) + layer.low_rank(torch.float64)
    torch.testing.assert_close(layer.decode_rotated(), total)
    torch.testing.assert_close(
        layer.rotation.apply(layer.decode(), layer.signs), total, rtol=0, atol=1e-14
    )


def test_zero_scale_decodes_to_zeros():
    layer = random_weight("l", 8, 24, rank=0, block=None)
    scale = layer.scale.clone()
    scale[5] = 0
    decoded = dataclasses.replace(layer, scale=scale).decode()
    assert not decoded[5].any()
    assert decoded[4].any()


@pytest.mark.parametrize("block", [None, (4, 8), (8, 24)])
@pytest.mark.parametrize("rank", [0, 3])
def test_record_and_tensors_come_back(rank, block):
    layer = random_weight("a.b", 8, 24, bits=5, rank=rank, block=block)
    record, tensors = layer.record(error_db=12.5, note="x"), layer.tensors()
    assert (record.error_db, record.note) == (12.5, "x")
    specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    assert specs == expected_tensors("a.b", record)
    again = QuantizedWeight.from_tensors("a.b", record, tensors, layer.rotation, layer.signs)
    assert torch.equal(again.decode(), layer.decode())
    assert again.record(error_db=12.5, note="x") == record


def test_expected_tensors_are_exact_integers():
    record = LayerRecord(
        weight_bits=3,
        in_features=2**24,
        out_features=2**24,
        rotation="none",
        global_rank=7,
        local_block=(2**20, 2**10),
    )
    assert expected_tensors("l", record) == {
        "l.codes": TensorSpec("U8", (2**24 * (2**22 + 2**21),)),
        "l.scale": TensorSpec("F32", (2**24,)),
        "l.global_up": TensorSpec("BF16", (2**24, 7)),
        "l.global_down": TensorSpec("BF16", (7, 2**24)),
        "l.local_up": TensorSpec("BF16", (2**4, 2**14, 2**20)),
        "l.local_down": TensorSpec("BF16", (2**4, 2**14, 2**10)),
        "l.bias": TensorSpec("BF16", (2**24,)),
    }
    with pytest.raises(ValueError, match="16 bits"):
        expected_tensors("l", LayerRecord(weight_bits=16, in_features=4, out_features=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": torch.zeros(95, dtype=torch.uint8)}, r"l\.codes is U8 \[95\], but must be"),
        ({"codes": torch.zeros(96)}, r"l\.codes is F32"),
        ({"scale": torch.zeros(9)}, r"l\.scale is F32 \[9\]"),
        ({"scale": torch.zeros(8, dtype=torch.bfloat16)}, r"l\.scale is BF16"),
        ({"global_up": None}, "global_up and global_down come only together"),
        ({"local_down": None}, "local_up and local_down come only together"),
        ({"global_up": torch.zeros(8, 3, dtype=torch.bfloat16)}, r"l\.global_up"),
        ({"local_up": torch.zeros(2, 3, 5, dtype=torch.bfloat16)}, "does not divide"),
        ({"local_up": torch.zeros(3, 2, 4, dtype=torch.bfloat16)}, r"l\.local_up"),
        ({"bias": torch.zeros(8)}, r"l\.bias is F32"),
        ({"rotation": Rotation.for_size(48)}, "rotation of size 48"),
        ({"rotation": Rotation.identity(24)}, "fit no rotation"),
        ({"signs": torch.ones(23)}, "fit no rotation"),
        ({"weight_bits": 16}, "l: codes of 16 bits"),
        ({"weight_bits": 9}, "l: codes of 9 bits"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(changes, message):
    layer = random_weight("l", 8, 24)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(layer, **changes)
