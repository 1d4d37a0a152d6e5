"""The network's structure; what it computes is held by test_oracle.py and test_sampler.py."""

import pytest
import torch
from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import POSITION_TABLE, tensor_shapes
from runtime.dit4sr.network import DiT4SR

CONFIG = TransformerConfig(
    sample_size=16,
    num_layers=3,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=24,
    caption_projection_dim=32,
    pooled_projection_dim=16,
    pos_embed_max_size=16,
    dual_attention_layers=(0, 1),
)


def make_network(variant="q"):
    torch.manual_seed(0)
    network = DiT4SR(CONFIG, variant).double()
    for parameter in network.parameters():
        # Biases and norms away from 0 and 1, or a swapped one would go unnoticed.
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1) * 0.5, std=0.2)
    return network.requires_grad_(False)


def make_inputs(height=8, width=8, batch=2, tokens=5):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = (batch, CONFIG.in_channels, height, width)
    return {
        "hidden_states": normal(*latent),
        "control": normal(*latent),
        "prompt_embeds": normal(batch, tokens, CONFIG.joint_attention_dim),
        "pooled": normal(batch, CONFIG.pooled_projection_dim),
        "timestep": torch.tensor([700.0, 30.0], dtype=torch.float64)[:batch],
    }


def test_state_dict_has_the_published_names():
    network = DiT4SR(CONFIG)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    expected = tensor_shapes(CONFIG)
    del expected[POSITION_TABLE]  # a network has it only where a checkpoint brings it
    assert shapes == expected


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (12, 4), (2, 2), (32, 6)])
def test_output_has_the_latents_shape_whatever_their_sides(size):
    inputs = make_inputs(*size)
    output = make_network()(**inputs)
    assert output.shape == inputs["hidden_states"].shape
    assert torch.isfinite(output).all()


def test_every_input_changes_the_output():
    network, inputs = make_network(), make_inputs()
    plain = network(**inputs)
    for name, value in inputs.items():
        changed = network(**{**inputs, name: value + 0.1})
        assert not torch.allclose(changed, plain, atol=1e-6), name


def test_control_grid_follows_the_latents_sides():
    """A control pixel moves the image most near itself, on a grid that is not square.

    Attention is switched off (value outputs zero), so that only the feed-forward's convolution,
    which is local, carries control to the image: three blocks reach three tokens at most.
    """
    network = make_network()
    for name, parameter in network.named_parameters():
        if "to_out" in name or "to_add_out" in name:
            parameter.zero_()
    inputs = make_inputs(8, 24, batch=1)
    moved = inputs["control"].clone()
    moved[..., 3, 21] += 1  # token row 1, column 10 of 4 x 12
    difference = network(**inputs) - network(**{**inputs, "control": moved})
    touched = difference.abs().sum((0, 1)).unflatten(0, (4, 2)).unflatten(2, (12, 2)).sum((1, 3))
    columns = touched.sum(0).nonzero().flatten()
    assert touched[1, 10] > 0
    assert columns.min() >= 7


def test_variants_differ_only_through_the_control_keys():
    inputs = make_inputs()
    outputs = {variant: make_network(variant)(**inputs) for variant in ("q", "f", "r1")}
    assert torch.equal(outputs["q"], outputs["f"])
    assert not torch.allclose(outputs["q"], outputs["r1"], atol=1e-6)


def test_images_of_a_batch_do_not_mix():
    network, inputs = make_network(), make_inputs()
    first = network(**{name: value[:1] for name, value in inputs.items()})
    torch.testing.assert_close(network(**inputs)[:1], first, rtol=1e-9, atol=1e-9)


def test_wrong_latents_are_refused():
    network, inputs = make_network(), make_inputs()
    with pytest.raises(ValueError, match="differ in shape"):
        network(**{**inputs, "control": inputs["control"][..., :6]})
    odd = {name: inputs[name][..., :7] for name in ("hidden_states", "control")}
    with pytest.raises(ValueError, match="does not divide into patches of 2"):
        network(**{**inputs, **odd})
    with pytest.raises(ValueError, match="more than the position table"):
        network(**make_inputs(34, 8))  # 17 token rows; the table has 16
