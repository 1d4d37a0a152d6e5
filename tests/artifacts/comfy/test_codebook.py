"""ComfyUI's codebook layout: a stored golden, the algebra, and comfy-kitchen itself if installed.

The golden was computed with comfy-kitchen 0.2.40 of the weight `WEIGHT`.
"""

import pytest
import torch

from artifacts.comfy.codebook import (
    CODEBOOK,
    GROUP,
    LARGEST_LEVEL,
    CodebookWeight,
    block_for_codebook,
    quantize_to_codebook,
)
from artifacts.comfy.rotation import pack_pairs, rotated, unpack_pairs

WEIGHT = torch.sin(torch.arange(2 * 64).reshape(2, 64) * 0.37) * torch.tensor([[1.0], [3.0]])
GOLDEN_CODES = (
    "efdd97db21236814efee75ca21128b25ddfe53973312bd68cbfd32754412ce8a"
    "97ec21336824efcd74da21228a35efee41a72212bd68eefe31753312ce8addfe"
)
GOLDEN_GROUP_STEPS = (128, 96, 104, 128, 128, 96, 96, 128)
GOLDEN_ROW_STEPS = (0.01075335405766964, 0.0311646219342947)


def test_the_golden():
    coded = quantize_to_codebook(WEIGHT)
    assert coded.block == 64
    assert coded.codes.numpy().tobytes().hex() == GOLDEN_CODES
    assert coded.group_step.float().flatten().tolist() == list(GOLDEN_GROUP_STEPS)
    torch.testing.assert_close(coded.row_step, torch.tensor(GOLDEN_ROW_STEPS), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("columns", "block"), [(768, 256), (192, 64), (96, 16), (36, None)])
def test_blocks(columns, block):
    assert block_for_codebook(columns) == block
    if block is None:
        with pytest.raises(ValueError, match="36 inputs"):
            quantize_to_codebook(torch.ones(2, columns))


def test_codes_are_the_nearest_of_what_the_steps_leave():
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(1))
    coded = quantize_to_codebook(weight)
    turned = rotated(weight, coded.block).reshape(6, -1, GROUP)
    book = torch.tensor(CODEBOOK)
    levels = (book * coded.group_step.float()[..., None]).round()
    assert float(levels.abs().max()) <= LARGEST_LEVEL
    every = levels[:, :, None, :] * coded.row_step[:, None, None, None]
    least = (every - turned[..., None]).abs().amin(3)
    error = (rotated(coded.decode(), coded.block).reshape(turned.shape) - turned).abs()
    torch.testing.assert_close(error, least, rtol=0, atol=1e-5)


def test_fitted_steps_are_better_than_the_largest_magnitude():
    weight = torch.randn(16, 256, generator=torch.Generator().manual_seed(2))
    error = (quantize_to_codebook(weight).decode() - weight).norm() / weight.norm()
    assert error < 0.075  # a step a row, with 15 levels, leaves more than 0.11


def test_rows_of_zeros_stay_zero():
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
    weight[1] = 0
    decoded = quantize_to_codebook(weight).decode()
    assert bool(decoded.isfinite().all())
    assert float(decoded[1].abs().max()) < 1e-6


def test_pairs_of_codes():
    codes = torch.arange(-8, 8, dtype=torch.int8).reshape(2, 8)
    assert torch.equal(unpack_pairs(pack_pairs(codes)), codes)


def test_comfy_kitchen_reads_the_same():
    pytest.importorskip("comfy_kitchen", reason="needs the extra `peers`")
    from comfy_kitchen.tensor.w4a8_int8 import (
        AsymW4A8Int8Layout,
        dequantize_w4a8_int8_weight,
        quantize_w4a8_int8_weight,
    )
    from comfy_kitchen.tensor.w4a8_packed import default_w4a8_codebook

    weight = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))
    coded = quantize_to_codebook(weight)
    names = AsymW4A8Int8Layout.state_dict_tensors(
        coded.codes,
        AsymW4A8Int8Layout.Params(
            scale=coded.group_step,
            s_channel=coded.row_step,
            codebook=coded.codebook,
            orig_dtype=torch.float32,
            orig_shape=(5, 192),
            convrot_groupsize=coded.block,
        ),
    )
    assert {f"weight{suffix}" for suffix in names} == set(coded.tensors)
    assert torch.equal(coded.codebook, default_w4a8_codebook())

    def theirs_reads(codes, group_step, row_step, codebook):
        return dequantize_w4a8_int8_weight(
            codes,
            group_step,
            row_step,
            codebook=codebook,
            convrot_groupsize=coded.block,
            output_dtype=torch.float32,
        )

    parts = (coded.codes, coded.group_step, coded.row_step, coded.codebook)
    torch.testing.assert_close(theirs_reads(*parts), coded.decode())
    found = quantize_w4a8_int8_weight(weight, convrot_groupsize=coded.block)
    theirs = CodebookWeight(found[0], found[1], found[2], found[4], coded.block)
    ours, other = ((w.decode() - weight).norm() for w in (coded, theirs))
    assert float(ours) <= 1.001 * float(other)
