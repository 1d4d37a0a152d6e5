"""The probe of one picture: sample it, then carry random cotangents back through the loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planner.probe.adjoint import SampledImage, checkpointed
from planner.probe.layer_gradients import LayerGradients
from runtime.pipeline import Pipeline
from runtime.sampling.sampler import initial_noise
from runtime.upscale import encode_image


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Mean squared change of the final latent per latent element; see `schemas.sensitivity`.

    Attributes:
        weight: float64 [layers].
        output, activation: float64 [layers, steps].
    """

    weight: Tensor
    output: Tensor
    activation: Tensor


def random_directions(shape: tuple[int, ...], count: int, seed: int) -> list[Tensor]:
    """Cotangents of the final latent, each float32 of ``shape``, from N(0, I).

    They must not be the noise that the loop starts from: the latent keeps much of its direction,
    along which layers' errors add up as they do along no random one.

    Args:
        shape: of the latent.
        count: how many.
        seed: `runtime.sampling.sampler.initial_noise` of the same seed is independent of them.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.randn(shape, generator=generator)  # the initial noise
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def probe_image(
    pipeline: Pipeline,
    layers: Sequence[str],
    rgb: Tensor,
    *,
    cotangents: int,
    seed: int,
    step_done: Callable[[], None] = lambda: None,
) -> Sensitivities:
    """Probe one picture.

    With cotangents drawn from N(0, I), the expected squared gradient is the squared norm of the
    Jacobian, which is the expected squared change of the latent for noise of unit variance.

    Args:
        pipeline: the unquantized network.
        layers: names of linear layers.
        rgb: [1, 3, H, W] in 0 ... 1, at most what fills one tile.
        cotangents: random directions; the error falls with the square root of their number.
        seed: of the noise and the directions.
        step_done: called ``2 * steps`` times.
    """
    settings = pipeline.sampling
    encoded = encode_image(pipeline, rgb, settings)
    control = encoded.control.to(pipeline.dtype)
    prompts = encoded.condition or pipeline.prompts
    shape = tuple(control.shape)
    noise = initial_noise(shape, seed)
    image = SampledImage(pipeline.network, control, prompts, settings, noise)
    directions = random_directions(shape, cotangents, seed)
    watch = LayerGradients(
        pipeline.network, layers, steps=settings.steps, cotangents=cotangents, seed=seed
    )
    trajectory = image.run(step_done)
    with watch, checkpointed(pipeline.network.recomputable):
        image.differentiate(trajectory, directions, watch, step_done)
    elements = control.numel()
    return Sensitivities(
        watch.weight().mean(-1) / elements,
        watch.output.mean(-1) / elements,
        watch.activation.mean(-1) / elements,
    )
