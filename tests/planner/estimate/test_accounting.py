"""Accounting: the published figures digit for digit, and the rules against the real network."""

from math import prod

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import block_linears
from artifacts.dit4sr.tokens import tokens_through
from artifacts.family import AttentionWork
from planner.estimate.accounting import (
    attention_operations,
    full_precision_operations,
    network_size,
    network_work,
    paper_flops,
    paper_operations,
    paper_parameters,
    true_operations,
)
from runtime.dit4sr.network import DiT4SR
from runtime.network.attention import SoftmaxAttention
from schemas.errors import UsageError
from tests.architectures import dit4sr
from tests.planner.estimate.small_network import SMALL, block_linears_of

PUBLISHED = TransformerConfig()


def count_tokens(config, *, resolution_px=512, text_tokens=333):
    return dit4sr(config).count_tokens(resolution_px, text_tokens)


@pytest.fixture(scope="module")
def size():
    return network_size(dit4sr(PUBLISHED))


@pytest.fixture(scope="module")
def work():
    return network_work(dit4sr(PUBLISHED), count_tokens(PUBLISHED))


def test_published_network_size(size):
    assert size.parameters == 2_716_814_144
    assert size.linears == 585
    assert size.linear_parameters == 2_694_316_032
    assert size.linear_sides == 2_652_672
    assert size.other_parameters == 22_498_112


@pytest.mark.parametrize(
    ("rank", "millions"),
    [(0, "359.29"), (36, "454.78"), (40, "465.39"), (48, "486.62"), (64, "529.06")],
)
def test_published_parameters(size, rank, millions):
    assert f"{paper_parameters(size, 4, rank) / 1e6:.2f}" == millions


def test_full_precision_in_the_papers_convention_is_the_network(size):
    assert paper_parameters(size, 32, 0) == size.parameters
    assert paper_parameters(size, 4, 0) == 359_287_616
    assert f"{size.parameters / paper_parameters(size, 4, 40):.2f}" == "5.84"


def test_published_multiply_accumulates(work):
    assert f"{work.dense / 1e9:,.3f}" == "2,130.949"
    assert f"{work.per_rank / 1e9:.6f}" == "2.250681"


def test_published_operations_of_the_linears(work):
    w4a4 = {"weight_bits": 4, "activation_bits": 4, "steps": 40}
    full = full_precision_operations(work, steps=40)
    paper = paper_operations(work, rank=40, **w4a4)
    true = true_operations(work, rank=40, **w4a4)
    assert f"{full / 1e9:,.0f}" == "170,476"
    assert f"{paper_operations(work, rank=0, **w4a4) / 1e9:,.0f}" == "2,664"
    assert f"{paper / 1e9:,.0f}" == "2,776"
    assert f"{true / 1e9:,.0f}" == "4,464"
    assert f"{full / paper:.0f}" == "61"
    assert f"{full / true:.0f}" == "38"


def test_true_and_paper_operations_agree_without_factors(work):
    settings = {"weight_bits": 3.5, "activation_bits": 6, "rank": 0, "steps": 7}
    assert true_operations(work, **settings) == paper_operations(work, **settings)


@pytest.mark.parametrize(
    ("rank", "giga", "published"),
    [
        (36, 207.37253, "207.37"),
        (40, 208.21654, "208.22"),
        (48, 209.90455, None),  # the paper prints 209.91, which no rounding of this gives
        (64, 213.28057, "213.28"),
    ],
)
def test_published_flops(work, rank, giga, published):
    flops = paper_flops(work, weight_bits=4, activation_bits=6, rank=rank) / 1e9
    assert flops == pytest.approx(giga, abs=5e-5)
    assert published is None or f"{flops:.2f}" == published


def test_multiply_accumulates_inside_attention():
    """By hand: 1024 + 1024 + 333 tokens see one another in 24 blocks, the first 2048 in 13."""
    architecture = dit4sr(PUBLISHED)
    work = architecture.family.attention_work(PUBLISHED, count_tokens(PUBLISHED))
    assert work.scores == work.values == (24 * 2381**2 + 13 * 2048**2) * 1536
    assert f"{work.macs / 1e9:.1f}" == "585.5"


def test_linears_and_attention_together(work):
    attention = FAMILY.attention_work(PUBLISHED, count_tokens(PUBLISHED))
    full = full_precision_operations(work, steps=40)
    full_attention = attention_operations(attention, steps=40, bits=32, probability_bits=32)
    true = true_operations(work, weight_bits=4, activation_bits=4, rank=40, steps=40)
    unquantized = attention_operations(attention, steps=40)
    assert f"{full_attention / 1e9:,.0f}" == "46,838"
    assert f"{unquantized / 1e9:,.0f}" == "11,710"
    assert f"{(full + full_attention) / 1e9:,.0f}" == "217,314"
    assert f"{(true + unquantized) / 1e9:,.0f}" == "16,174"
    assert f"{(full + full_attention) / (true + unquantized):.1f}" == "13.4"


def test_what_is_not_counted_is_little(work):
    """By hand: convolutions, patches in and out, text, conditioning vectors, last modulation."""
    patches = 2 * 1024 * 64 * 1536 + 1024 * 1536 * 64
    vectors = (256 + 2048 + 3 * 1536 + 2 * 1536 - 1536) * 1536
    others = 24 * 9 * 6144 * 1024 + patches + 333 * 4096 * 1536 + vectors
    attention = FAMILY.attention_work(PUBLISHED, count_tokens(PUBLISHED))
    assert f"{others / (work.dense + attention.macs):.2%}" == "0.14%"


def test_probabilities_of_eight_bits_halve_their_product():
    attention = AttentionWork(scores=700, values=300)
    assert attention_operations(attention, steps=2) == 2 * 2 * 1000 / 4
    half = attention_operations(attention, steps=2, probability_bits=8)
    assert half == 2 * 2 * (700 + 150) / 4


@torch.no_grad()
def test_attention_is_counted_as_the_network_runs_it(monkeypatch):
    """All but the text queries of the last block, which the network leaves out."""
    scores, values = [], []
    attend = SoftmaxAttention.forward

    def counted(self, q, k, v, **options):
        scores.append(q.shape[:-1].numel() * k.shape[-2] * q.shape[-1])
        values.append(q.shape[:-1].numel() * v.shape[-2] * v.shape[-1])
        return attend(self, q, k, v, **options)

    monkeypatch.setattr(SoftmaxAttention, "forward", counted)
    latent = torch.randn(1, 16, 8, 12)
    inputs = (latent, latent, torch.randn(1, 5, 40), torch.randn(1, 24), torch.tensor([9.0]))
    DiT4SR(SMALL)(*inputs)
    tokens = {"image": 24, "control": 24, "text": 5}
    work = FAMILY.attention_work(SMALL, tokens)
    left_out = 5 * 53 * SMALL.hidden_size
    assert (sum(scores), sum(values)) == (work.scores - left_out, work.values - left_out)


def test_token_counts():
    assert count_tokens(PUBLISHED) == {"image": 1024, "control": 1024, "text": 333}
    assert count_tokens(PUBLISHED, resolution_px=1024, text_tokens=154) == {
        "image": 4096,
        "control": 4096,
        "text": 154,
    }
    patch_of_four = PUBLISHED.model_copy(update={"patch_size": 4})
    assert count_tokens(patch_of_four)["image"] == 256


@pytest.mark.parametrize(("pixels", "nearest"), [(500, 496), (8, 16), (0, 16), (-64, 16)])
def test_a_resolution_without_whole_tokens_is_refused(pixels, nearest):
    with pytest.raises(UsageError, match=f"{pixels} px") as caught:
        count_tokens(PUBLISHED, resolution_px=pixels)
    assert f"{nearest} px" in caught.value.hint
    assert count_tokens(PUBLISHED, resolution_px=nearest)["image"] > 0


def test_a_negative_prompt_length_is_refused():
    with pytest.raises(UsageError, match="text tokens"):
        count_tokens(PUBLISHED, text_tokens=-1)


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        ("norm1.linear", 1),
        ("norm1_context.linear", 1),
        ("attn.to_k", 10 + 200),
        ("attn.to_out.0", 10),
        ("attn.to_k_control", 200),
        ("attn.to_out_control", 200),
        ("attn.add_q_proj", 3000),
        ("attn.to_add_out", 3000),
        ("attn2.to_v", 10 + 200),
        ("attn2.to_v_control", 200),
        ("attn2.add_k_proj", 0),
        ("attn2.to_add_out", 0),
        ("ff.net.0.proj", 10 + 200),
        ("ff_context.net.2", 3000),
    ],
)
def test_the_streams_are_told_apart(layer, count):
    # The streams of a real image are equally long, which would hide a mix-up.
    tokens = {"image": 10, "control": 200, "text": 3000}
    assert tokens_through(f"transformer_blocks.7.{layer}", tokens) == count


@torch.no_grad()
def test_the_token_rules_are_what_the_network_runs():
    """r1 runs every layer the rules count, save for two savings in the last block."""
    network = DiT4SR(SMALL, "r1")
    seen = dict.fromkeys(block_linears_of(network), 0)
    for name, module in block_linears_of(network).items():

        def count(module, inputs, output, name=name):
            seen[name] += inputs[0].shape[:-1].numel()

        module.register_forward_hook(count)
    latent = torch.randn(1, 16, 8, 12)
    network(latent, latent, torch.randn(1, 5, 40), torch.randn(1, 24), torch.tensor([9.0]))

    tokens = {"image": 24, "control": 24, "text": 5}
    counted = {name: tokens_through(name, tokens) for name in seen}
    last = "transformer_blocks.5."
    assert {name for name in seen if seen[name] != counted[name]} == {
        last + "attn.add_q_proj",  # never run
        last + "ff.net.2",  # run on the image half alone
    }
    assert seen[last + "attn.add_q_proj"] == 0
    assert seen[last + "ff.net.2"] == 24


def test_the_size_of_another_configuration_is_that_of_its_network():
    network = DiT4SR(SMALL)
    linears = block_linears_of(network).values()
    size = network_size(dit4sr(SMALL))
    assert size.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert size.linears == len(linears)
    assert size.linear_parameters == sum(linear.weight.numel() for linear in linears)
    assert size.linear_sides == sum(sum(linear.weight.shape) for linear in linears)


def test_kept_layers_count_as_full_precision(size, work):
    tokens = count_tokens(PUBLISHED)
    kept = [name for name in block_linears(PUBLISHED) if "attn" in name]
    own_size, own_work = (
        network_size(dit4sr(PUBLISHED), kept),
        network_work(dit4sr(PUBLISHED), tokens, kept),
    )
    sizes = [prod(block_linears(PUBLISHED)[name]) for name in kept]
    assert own_size.parameters == size.parameters
    assert own_size.linears == size.linears - len(kept)
    assert own_size.other_parameters == size.other_parameters + sum(sizes)
    kept_macs = work.dense - own_work.dense
    assert kept_macs == sum(
        tokens_through(name, tokens) * prod(block_linears(PUBLISHED)[name]) for name in kept
    )
    settings = {"rank": 3, "kept_macs": kept_macs}
    full = {"weight_bits": 32, "activation_bits": 32, "rank": 0}
    assert paper_operations(own_work, steps=7, kept_macs=kept_macs, **full) == pytest.approx(
        full_precision_operations(work, steps=7)
    )
    assert paper_flops(own_work, kept_macs=kept_macs, **full) == pytest.approx(
        paper_flops(work, **full)
    )
    low = {"weight_bits": 4, "activation_bits": 6, "steps": 1}
    paper, true = (f(own_work, **low, **settings) for f in (paper_operations, true_operations))
    factors = 3 * own_work.per_rank
    assert paper == pytest.approx(2 * ((own_work.dense + factors) * 24 + kept_macs * 1024) / 1024)
    assert true == pytest.approx(2 * (own_work.dense * 24 + (factors + kept_macs) * 256) / 1024)
