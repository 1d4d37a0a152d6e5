import math

import pytest
import torch

from artifacts.vosr.config import VOSR_05B, VOSR_14B
from artifacts.vosr.family import FAMILY
from artifacts.vosr.layout import ROTARY_COSINES, ROTARY_SINES, block_linears, tensor_shapes
from artifacts.vosr.rotary_table import are_cosines, are_sines, cosines, rotary_angles, sines
from tests.artifacts.vosr.make_vosr import TINY


def parameters(config):
    shapes = tensor_shapes(config)
    return sum(math.prod(shape) for name, shape in shapes.items() if name not in FAMILY.rebuilt)


@pytest.mark.parametrize(
    ("config", "exact", "published_millions"),
    [(VOSR_05B, 486_936_384, 487), (VOSR_14B, 1_396_699_200, 1397)],
)
def test_parameters_are_as_many_as_published(config, exact, published_millions):
    assert parameters(config) == exact
    assert round(exact / 1e6) == published_millions


def test_the_count_hangs_on_the_second_time_and_on_the_features_layers():
    """What would not give the published numbers, so that they say something."""
    shapes = tensor_shapes(VOSR_05B)
    without_second = {n: s for n, s in shapes.items() if not n.startswith("r_embedder.")}
    assert sum(map(math.prod, without_second.values())) / 1e6 < 486.5  # tables of 0.1 M included
    narrower = VOSR_05B.model_copy(update={"encdim_ratio": 2})
    assert round(parameters(narrower) / 1e6) == 485


def test_quantizable_layers_are_eight_a_block():
    linears = block_linears(VOSR_05B)
    assert len(linears) == 8 * VOSR_05B.depth
    assert [name.removeprefix("blocks.0.") for name in list(linears)[:8]] == [
        "attn.qkv",
        "attn.proj",
        "mlp.w12",
        "mlp.w3",
        "cross_attn.q_linear",
        "cross_attn.k_linear",
        "cross_attn.v_linear",
        "cross_attn.proj",
    ]
    assert linears["blocks.0.mlp.w3"] == (1024, 2730)


def test_features_of_the_published_encoder():
    assert (VOSR_05B.feature_tokens, FAMILY.text_tokens) == (1024, 1024)
    assert VOSR_05B.trained_tokens == 32


def test_attention_and_tokens():
    tokens = FAMILY.streams(100, 16)
    assert FAMILY.tokens_through("blocks.3.cross_attn.k_linear", tokens) == 16
    assert FAMILY.tokens_through("blocks.3.cross_attn.q_linear", tokens) == 100
    work = FAMILY.attention_work(TINY, tokens)
    assert work.scores == work.values == 2 * 32 * (100 * 100 + 100 * 16)


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": 5},
        {"num_heads": 16},  # heads of 2 channels: no pairs for both axes
        {"resolution": 500},
        {"dinov2_size": 450},
        {"mlp_ratio": 0.01},
        {"layer_dinov2b_list": []},
        {"ae_type": "flux"},
        {"use_swiglu": False},
        {"resolution": 65536},
    ],
)
def test_configurations_that_are_no_vosr(change):
    with pytest.raises(ValueError, match=r"dim|resolution|dinov2|mlp_ratio|ae_type|use_swiglu"):
        type(TINY).model_validate({**TINY.model_dump(mode="json"), **change})


def test_rotary_angles_by_the_formula():
    angles = rotary_angles(TINY, 4, 8)
    assert angles.shape == (32, 16)
    row, column = 3, 5
    token = angles[row * 8 + column]
    for pair in range(4):  # a half of 8 channels
        frequency = 10000 ** (-2 * pair / 8)
        assert token[2 * pair] == token[2 * pair + 1]
        assert float(token[2 * pair]) == pytest.approx(row / 4 * 32 * frequency, rel=1e-5)
        assert float(token[8 + 2 * pair]) == pytest.approx(column / 8 * 32 * frequency, rel=1e-5)


def test_rotary_tables_are_known_in_any_dtype_and_others_are_not():
    for dtype in (torch.float32, torch.bfloat16):
        assert are_cosines(cosines(TINY).to(dtype), TINY)
        assert are_sines(sines(TINY).to(dtype), TINY)
    assert not are_cosines(sines(TINY), TINY)
    assert not are_sines(sines(TINY)[:-1], TINY)
    assert not are_sines(sines(TINY) * float("nan"), TINY)
    shapes = tensor_shapes(TINY)
    assert shapes[ROTARY_COSINES] == shapes[ROTARY_SINES] == tuple(cosines(TINY).shape)
