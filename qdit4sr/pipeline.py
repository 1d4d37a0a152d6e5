"""A pipeline object in the manner of diffusers, for programs that already use those.

pipe = qdit4sr.load("model.qpack")
image = pipe(Image.open("photo.png"), num_inference_steps=20).images[0]
"""

from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from qdit4sr.argument_names import in_python_terms
from qdit4sr.pictures import as_tensors, check_output_type, from_tensors
from qdit4sr.transformer import QuantizedTransformer
from runtime.base.files import BaseFiles
from runtime.base.folder import base_folder
from runtime.loader import load_pipeline
from runtime.pipeline import Pipeline
from runtime.prompts.change import with_texts
from runtime.prompts.texts import PromptTexts
from runtime.sampling.sampler import LatentCallback
from runtime.sampling.settings import SamplingOptions
from runtime.upscale import upscale
from schemas.errors import UsageError

StepEnd = Callable[["UpscalePipeline", int, float, dict[str, Any]], Mapping[str, Any] | None]
"""diffusers' callback: pipeline, step from 0, timestep, tensors by name -> those to go on with."""

_LATENTS = "latents"
_SEEDS = 2**63 - 1


class UpscalePipeline:
    """A loaded model, called with images.

    Args:
        arguments: what `runtime.loader.load_pipeline` takes, by name; kept for `to`.

    Attributes:
        model: the runtime's parts, for its functions.
    """

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        self.model: Pipeline = load_pipeline(**arguments)
        self._prompted: dict[PromptTexts, Pipeline] = {}

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network's inputs are cast to."""
        return self.model.dtype

    @property
    def transformer(self) -> QuantizedTransformer:
        """The network, as one of diffusers' models."""
        model = self.model
        return QuantizedTransformer(model.architecture, model.network, model.bits_at)

    def to(self, device: str | torch.device) -> "UpscalePipeline":
        """Load the model again on another device; returns this pipeline.

        Every device has its own form of the quantized weights, made from the pack.

        Raises:
            UsageError: the model cannot run there.
        """
        name = torch.device(device).type
        if name != self.device.type:
            self._arguments = {**self._arguments, "device": name}
            self.model = load_pipeline(**self._arguments)
            self._prompted.clear()
        return self

    def __call__(
        self,
        image: Any,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seed: int = 0,
        scale: int = 4,
        tile: int | None = None,
        overlap: int | None = None,
        color_fix: str | None = None,
        fidelity: float | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = (_LATENTS,),
    ) -> Any:
        """Enlarge one image or several, one after another.

        Args:
            image: as `qdit4sr.pictures.as_tensors` takes it.
            prompt: what guidance steers towards, one for all images or one each; needs a base model
                with text encoders, or is the name of a prompt that the model has ready. None for
                the pack's.
            negative_prompt: what it steers away from; None for the pack's.
            num_inference_steps: sampling steps; None for the pack's own.
            guidance_scale: classifier-free guidance; None for the pack's own.
            generator: the seed of every image is drawn from it, or from the image's own of a list;
                None takes ``seed``.
            seed: of the starting noise.
            scale: enlargement of the result, 4, 2 or 1; the network restores at 4.
            tile: as `qdit4sr.upscale` takes it.
            overlap: as `qdit4sr.upscale` takes it.
            color_fix: as `qdit4sr.upscale` takes it.
            fidelity: as `qdit4sr.upscale` takes it.
            output_type: ``pil``, ``np`` or ``pt``.
            return_dict: False gives a tuple.
            callback_on_step_end: called after every step; what it returns under ``latents``
                replaces the latents [1, C, h, w].
            callback_on_step_end_tensor_inputs: which tensors it is given: ``latents``, or none.

        Returns:
            An object with ``images``, or a tuple of them; transparent input as seen on white.

        Raises:
            ImageError: an input is no image.
            UsageError: a setting that the model cannot run with, or a prompt without an encoder.
            ResourceError: memory ran out.
        """
        check_output_type(output_type)
        if scale not in (1, 2, 4):
            raise UsageError(f"scale {scale}: 1, 2 or 4")
        unknown = sorted(set(callback_on_step_end_tensor_inputs) - {_LATENTS})
        if unknown:
            raise UsageError(f"callback_on_step_end_tensor_inputs: there is no {unknown[0]!r}")
        pictures = as_tensors(image)
        prompts = [prompt] * len(pictures) if prompt is None or isinstance(prompt, str) else prompt
        if len(prompts) != len(pictures):
            raise UsageError(f"{len(prompts)} prompts for {len(pictures)} images")
        seeds = _seeds(generator, seed, len(pictures))
        results = []
        for rgb, text, own_seed in zip(pictures, prompts, seeds, strict=True):
            model = self._with_texts(PromptTexts(text, negative_prompt))
            options = SamplingOptions(
                num_inference_steps,
                guidance_scale,
                tile,
                overlap,
                color_fix,
                own_seed,
                fidelity,
            )
            watch = None
            if callback_on_step_end is not None:
                watch = self._watch(callback_on_step_end, callback_on_step_end_tensor_inputs)
            with in_python_terms(steps="num_inference_steps", guidance="guidance_scale"):
                settings = options.settings(
                    model.sampling, patch_size=model.patch_size, largest_tile=model.largest_tile
                )
                results.append(upscale(model, rgb, settings, scale=scale, on_latent=watch))
        images = from_tensors(results, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model})"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a pipeline cannot be pickled: it holds kernels and memory of this process; load the"
            " pack again in the other one"
        )

    def _with_texts(self, texts: PromptTexts) -> Pipeline:
        """The model with other prompts, which are encoded once."""
        if not texts.all:
            return self.model
        if texts not in self._prompted:
            with base_folder(self._arguments.get("base") or BaseFiles()) as folder:
                self._prompted[texts] = with_texts(self.model, folder, texts)
        return self._prompted[texts]

    def _watch(self, callback: StepEnd, names: Sequence[str]) -> LatentCallback:
        def on_latent(step: int, timestep: float, latent: Tensor) -> Tensor:
            given = {_LATENTS: latent} if _LATENTS in names else {}
            changed = callback(self, step, timestep, given) or {}
            found: Tensor = changed.get(_LATENTS, latent)
            if found.shape != latent.shape:
                raise UsageError(
                    f"callback_on_step_end: latents {list(found.shape)} for {list(latent.shape)}"
                )
            return found

        return on_latent


def _seeds(
    generator: torch.Generator | Sequence[torch.Generator] | None, seed: int, count: int
) -> list[int]:
    """The seed of every image.

    Raises:
        UsageError: ``seed`` is no whole number, or there is not a generator for each image.
    """
    if generator is None:
        try:
            return [index(seed)] * count
        except TypeError as cause:
            raise UsageError(f"seed {seed!r}: a whole number is needed") from cause
    if isinstance(generator, torch.Generator):
        return [_drawn_seed(generator) for _ in range(count)]
    if len(generator) != count:
        raise UsageError(f"{len(generator)} generators for {count} images")
    return [_drawn_seed(own) for own in generator]


def _drawn_seed(generator: torch.Generator) -> int:
    return int(torch.randint(_SEEDS, (), generator=generator, device=generator.device))
