"""ComfyUI's layouts: a stored golden, the algebra, and comfy-kitchen itself where it is installed.

The golden was computed with comfy-kitchen 0.2.40 of the weight `WEIGHT`.
"""

import pytest
import torch

from artifacts.comfy.layouts import INT8, W4A4, block_of, quantize
from artifacts.comfy.rotation import rotated

WEIGHT = torch.sin(torch.arange(2 * 64).reshape(2, 64) * 0.37) * torch.tensor([[1.0], [3.0]])
GOLDEN = {
    INT8: {
        "codes": (
            "7f645658f811315497adb7b50ceec79c5b4e4c57e3fb1732b5bfc0b72507e6c6"
            "42424e64c5e1fc12cacabfac482607ec36415b7fa3c6e4f9d5cbb5967047230a"
            "f9163c6696b2c3c907efcfac7f5f4a44e0fc1d3dafbfc6c31c04e9ce614e464a"
            "bcddfd18bec4bfb13a1e04ee4e484e5f94bde1fbc1beb0965b391b064a4e607f"
        ),
        "scale": [0.010474702343344688, 0.03180530294775963],
    },
    W4A4: {
        "codes": (
            "57551053baccf1ad45540e31cccc02df4464ed10ddbc24f04375db0edeac4612"
            "1063caddf0bd57440e32ccdd02df4544ec10dccc23f04454ca0ecdac35014475"
        ),
        "scale": [0.19004103541374207, 0.5770390629768372],
    },
}


@pytest.mark.parametrize("layout", [INT8, W4A4])
def test_the_golden(layout):
    coded = quantize(WEIGHT, layout)
    assert coded.block == 64
    assert coded.codes.dtype == torch.int8
    assert coded.codes.numpy().tobytes().hex() == GOLDEN[layout]["codes"]
    assert coded.scale.dtype == torch.float32
    expected = torch.tensor(GOLDEN[layout]["scale"]).reshape(coded.scale.shape)
    torch.testing.assert_close(coded.scale, expected, rtol=1e-6, atol=0)
    assert coded.scale.shape == ((2, 1) if layout == INT8 else (2,))


@pytest.mark.parametrize("block", [4, 16, 64, 256])
def test_the_rotation_undoes_itself(block):
    weight = torch.randn(3, 512, dtype=torch.float64)
    torch.testing.assert_close(rotated(rotated(weight, block), block), weight)
    assert rotated(weight, block).norm() == pytest.approx(float(weight.norm()))


@pytest.mark.parametrize(
    ("columns", "layout", "expected"),
    [
        (768, INT8, 256),
        (192, INT8, 64),
        (96, INT8, 16),
        (36, INT8, 4),
        (7, INT8, None),
        (1536, W4A4, 256),
        (96, W4A4, None),
        (64, W4A4, 64),
    ],
)
def test_blocks(columns, layout, expected):
    assert block_of(columns, layout) == expected


@pytest.mark.parametrize("layout", [INT8, W4A4])
def test_errors_are_half_a_step_at_most(layout):
    weight = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    coded = quantize(weight, layout)
    error = rotated(coded.decode() - weight, coded.block).abs()
    assert bool((error <= 0.5001 * coded.scale.reshape(-1, 1)).all())
    assert bool((coded.decode()[2] == 0).all())


@pytest.mark.parametrize("layout", [INT8, W4A4])
def test_comfy_kitchen_reads_the_same(layout):
    pytest.importorskip("comfy_kitchen", reason="needs the extra `peers`")
    from comfy_kitchen.tensor.convrot_w4a4 import TensorCoreConvRotW4A4Layout
    from comfy_kitchen.tensor.int8 import TensorWiseINT8Layout

    weight = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))
    coded = quantize(weight, layout)
    common = {"orig_dtype": torch.float32, "orig_shape": (5, 192), "scale": coded.scale}
    if layout == INT8:
        reader = TensorWiseINT8Layout
        params = reader.Params(convrot=True, convrot_groupsize=coded.block, **common)
    else:
        reader = TensorCoreConvRotW4A4Layout
        params = reader.Params(convrot_groupsize=coded.block, **common)
    torch.testing.assert_close(reader.dequantize(coded.codes, params), coded.decode())
    options = {"per_channel": True, "convrot": True} if layout == INT8 else {}
    codes, theirs = reader.quantize(weight, convrot_groupsize=coded.block, **options)
    torch.testing.assert_close(theirs.scale, coded.scale)
    # A value at the middle of two codes may go either way.
    assert int((codes != coded.codes).sum()) <= 2
