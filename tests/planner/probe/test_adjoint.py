"""Derivatives through the sampling loop, against finite differences and against autograd."""

import itertools
from dataclasses import replace

import pytest
import torch

from planner.probe import layer_gradients
from planner.probe.adjoint import SampledImage, checkpointed
from planner.probe.image_probe import random_directions
from planner.probe.layer_gradients import LayerGradients
from runtime.sampling.sampler import initial_noise

LAYERS = (
    "transformer_blocks.0.norm1.linear",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.add_v_proj",
    "transformer_blocks.1.ff.net.2",
)
SHAPE = (1, 16, 4, 6)
STEPS = 3


@pytest.fixture(scope="module")
def image(tiny):
    """The tiny network in float64, and its sampling loop on one latent."""
    generator = torch.Generator().manual_seed(1)
    network = tiny.network.double()
    control, noise = (torch.randn(SHAPE, generator=generator).double() for _ in range(2))
    prompts = tiny.prompts.to(torch.device("cpu"), torch.float64)
    settings = replace(tiny.sampling, steps=STEPS, guidance=2.0)
    yield network, lambda start=noise: SampledImage(network, control, prompts, settings, start)
    network.float()


def cotangents(count):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(SHAPE, generator=generator).double() for _ in range(count)]


def watch(network, count=1):
    return LayerGradients(network, LAYERS, steps=STEPS, cotangents=count, seed=0)


def test_the_loop_is_the_samplers(tiny):
    from runtime.sampling.sampler import sample

    generator = torch.Generator().manual_seed(1)
    control, noise = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    settings = replace(tiny.sampling, steps=STEPS, guidance=2.0)
    ours = SampledImage(tiny.network, control, tiny.prompts, settings, noise).run()
    theirs = sample(
        tiny.network, control, tiny.prompts, settings, noise=noise, patch_size=tiny.patch_size
    )
    torch.testing.assert_close(ours.latents[-1], theirs, rtol=1e-5, atol=1e-6)
    assert len(ours.latents) == STEPS + 1


def test_the_cotangent_of_the_noise_is_the_finite_difference(image):
    network, loop = image
    (cotangent,), direction = cotangents(1), cotangents(2)[1]
    sampled = loop()
    trajectory = sampled.run()
    with watch(network) as watched:
        (pulled,) = sampled.differentiate(trajectory, [cotangent], watched)
    step = 1e-6
    there, back = (
        loop(trajectory.latents[0] + sign * step * direction).run().latents[-1] for sign in (1, -1)
    )
    measured = float(((there - back) / (2 * step) * cotangent).sum())
    assert float((pulled * direction).sum()) == pytest.approx(measured, rel=1e-6)


def through_the_loop(network, sampled, cotangent):
    """Squared gradients of layers, by autograd over the whole loop: output, activation, weight."""
    outputs = {name: [] for name in LAYERS}
    inputs = {name: [] for name in LAYERS}
    hooks = []
    for name in LAYERS:

        def hook(_module, arguments, output, name=name):
            output.retain_grad()
            outputs[name].append(output)
            inputs[name].append(arguments[0].detach())

        hooks.append(network.get_submodule(name).register_forward_hook(hook))
    network.requires_grad_(True)
    with torch.enable_grad():
        latent = sampled._start
        for timestep, change in zip(sampled._timesteps, sampled._changes, strict=True):
            latent = latent + change * sampled._at(latent, timestep)
        (latent * cotangent).sum().backward()
    for handle in hooks:
        handle.remove()
    found = {}
    for name in LAYERS:
        layer = network.get_submodule(name)
        grads = [y.grad.flatten(0, -2) for y in outputs[name]]
        squares = [x.flatten(0, -2).square().mean(-1) for x in inputs[name]]
        found[name] = (
            [float(g.square().sum()) for g in grads],
            [
                float((g.square().sum(-1) * s).sum()) / g.shape[-1]
                for g, s in zip(grads, squares, strict=True)
            ],
            float(layer.weight.grad.square().sum()),
        )
    network.requires_grad_(False)
    for parameter in network.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("recompute", [False, True])
def test_layers_get_the_gradients_of_the_whole_loop(image, monkeypatch, recompute):
    network, loop = image
    # A sketch of an orthonormal basis loses nothing.
    monkeypatch.setattr(LayerGradients, "_sketch", lambda _self, size, _device: torch.eye(size))
    directions = cotangents(2)
    sampled = loop()
    blocks = network.recomputable if recompute else []
    with watch(network, 2) as watched, checkpointed(blocks):
        sampled.differentiate(sampled.run(), directions, watched)
    for column, cotangent in enumerate(directions):
        expected = through_the_loop(network, loop(), cotangent)
        for row, name in enumerate(LAYERS):
            output, activation, weight = expected[name]
            assert watched.output[row, :, column].tolist() == pytest.approx(output, rel=1e-4)
            assert watched.activation[row, :, column].tolist() == pytest.approx(
                activation, rel=1e-4
            )
            found = float(watched.weight()[row, column])
            size = network.get_submodule(name).weight.numel()
            assert found * size == pytest.approx(weight, rel=1e-4)
    assert "forward" not in vars(network.recomputable[0])


def test_a_sketch_keeps_the_norm_on_average(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(20, 48, generator=generator)
    rank_one = torch.outer(matrix[:, 0], matrix[0])
    network = torch.nn.Module()
    for exact in (matrix, rank_one):
        norms = []
        for seed in range(200):
            watched = LayerGradients(network, [], steps=1, cotangents=1, seed=seed)
            sketch = watched._sketch(48, torch.device("cpu"))
            norms.append(float((exact @ sketch).square().sum()))
        ratio = sum(norms) / len(norms) / float(exact.square().sum())
        # Deviation of one sketch at most sqrt(2 / 32), of the mean of 200 a fourteenth of it.
        assert ratio == pytest.approx(1, abs=4 * (2 / layer_gradients.SKETCH_COLUMNS / 200) ** 0.5)


def test_noise_in_a_layer_changes_the_latent_as_predicted(image):
    """The estimate is unbiased: random cotangents against noise that is really added."""
    network, loop = image
    step, size, count = 1, 1e-4, 60
    name = LAYERS[1]
    sampled = loop()
    trajectory = sampled.run()
    directions = cotangents(count)
    torch.manual_seed(0)
    watched = LayerGradients(network, [name], steps=STEPS, cotangents=count, seed=0)
    with watched:
        sampled.differentiate(trajectory, directions, watched)
    predicted = float(watched.output[0, step].mean())

    calls = 0

    def add_noise(_module, _arguments, output):
        nonlocal calls
        calls += 1
        return output + size * torch.randn_like(output) if calls == step + 1 else output

    changes = []
    hook = network.get_submodule(name).register_forward_hook(add_noise)
    for _ in range(count):
        calls = 0
        changed = loop().run().latents[-1] - trajectory.latents[-1]
        changes.append(float(changed.square().sum()) / size**2)
    hook.remove()
    measured = sum(changes) / count
    # The latent's change has few directions: each mean of 60 draws deviates by some 7 %.
    assert predicted == pytest.approx(measured, rel=0.3)


def test_noise_in_a_weight_changes_the_latent_as_predicted(image):
    """In the unit of the file: noise with a squared Frobenius norm of 1, the same at all steps."""
    network, loop = image
    size, count = 1e-4, 60
    layer = network.get_submodule(LAYERS[1])
    sampled = loop()
    trajectory = sampled.run()
    watched = LayerGradients(network, [LAYERS[1]], steps=STEPS, cotangents=count, seed=0)
    with watched:
        sampled.differentiate(trajectory, cotangents(count), watched)
    predicted = float(watched.weight().mean())

    torch.manual_seed(0)
    original = layer.weight.detach().clone()
    changes = []
    for _ in range(count):
        noise = torch.randn_like(original)
        with torch.no_grad():
            layer.weight.copy_(original + size * noise / noise.norm())
        changed = loop().run().latents[-1] - trajectory.latents[-1]
        changes.append(float(changed.square().sum()) / size**2)
    with torch.no_grad():
        layer.weight.copy_(original)
    assert predicted == pytest.approx(sum(changes) / count, rel=0.3)


def test_directions_are_independent_of_the_initial_noise():
    """Along the noise, which the final latent resembles, sensitivities are larger by far."""
    shape = (1, 16, 32, 32)
    noise = initial_noise(shape, 3).flatten()
    directions = [d.flatten() for d in random_directions(shape, 3, 3)]
    for one, other in itertools.combinations([noise, *directions], 2):
        assert abs(float(torch.nn.functional.cosine_similarity(one, other, dim=0))) < 4 / 128
