"""The functions of `qdit4sr`: the two commands for callers in Python.

They take the names and the defaults of ``qrun upscale`` and ``qplan build``, and raise the typed
errors of `schemas.errors`.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qdit4sr.pipeline import UpscalePipeline
    from runtime.pipeline import Pipeline
    from schemas.manifest import Manifest

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


def load(
    pack: PathLike | None = None,
    *,
    full_precision: PathLike | None = None,
    base: PathLike | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    variant: str | None = None,
    checkpoint: PathLike | None = None,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    activation_bits: int | None = None,
    memory: str = "auto",
) -> "UpscalePipeline":
    """Load a model: an object to call with images, as diffusers' pipelines are, and for `upscale`.

    Args:
        pack: a ``.qpack`` folder, or ``org/name`` or ``org/name@revision`` on the Hugging Face Hub,
            which is fetched once.
        full_precision: an unquantized checkpoint to run instead; ``pack`` then lends its parts.
        base: a Stable Diffusion 3.5 folder or file, for a pack without autoencoder or prompts.
        prompt: positive prompt instead of the pack's; ``base`` must have the text encoders.
        negative_prompt: negative prompt instead of the pack's.
        variant: which published network the ``full_precision`` checkpoint is.
        checkpoint: the pack's source, for other steps and prompts than a pack's with a table of
            modulations.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps`` (never tried).
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        backend: ``auto``, or one that ``qrun doctor`` lists.
        activation_bits: of every quantized layer at every step, such as 8, which takes little or no
            more time where 8-bit integers are multiplied; None for the pack's bit grid.
        memory: ``low`` keeps weights packed on a GPU, ``fast`` does not, ``auto`` where memory is
            short.

    Raises:
        PackError, CheckpointError: what was named is damaged, or is something else.
        ResourceError: the hub cannot be reached.
        UsageError: a part is missing, or it cannot run here.
    """
    from artifacts.hub.fetch import local_pack
    from qdit4sr.pipeline import UpscalePipeline
    from runtime.base.files import BaseFiles
    from runtime.prompts.texts import PromptTexts

    return UpscalePipeline(
        pack=None if pack is None else local_pack(Path(pack)),
        full_precision=_path(full_precision),
        variant=variant,
        base=BaseFiles(_path(base)),
        texts=PromptTexts(prompt, negative_prompt),
        checkpoint=_path(checkpoint),
        device=device,
        dtype=dtype,
        backend=backend,
        activation_bits=activation_bits,
        memory=memory,
    )


def upscale(
    model: "UpscalePipeline | Pipeline | PathLike",
    image: "PathLike | NDArray[np.uint8]",
    output: PathLike | None = None,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    color_fix: str | None = None,
    fidelity: float | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> "NDArray[np.uint8] | None":
    """Enlarge an image four times.

    Args:
        model: what `load` returned, its ``model``, or a pack.
        image: a file, or pixels uint8 [H, W, 3], sRGB.
        output: where to write the result of a file: alpha, profile and metadata go along.
        steps: sampling steps; None, here as below, for the pack's own.
        guidance: classifier-free guidance scale.
        seed: of the starting noise.
        tile: side of a tile, in latent pixels.
        overlap: what neighbouring tiles share, in latent pixels.
        color_fix: ``adain``, ``wavelet`` or ``none``.
        fidelity: 0 samples from noise alone; up to 1 it begins nearer the input, with fewer steps.
        on_step: called with the steps done and the steps in all.

    Returns:
        Pixels uint8 [4 H, 4 W, 3], of a transparent image as it is seen on white; None where they
        were written to ``output``.

    Raises:
        ImageError: the input is no image.
        UsageError: a setting that the model cannot run with, ``output`` for pixels, or the input
            as ``output``, or one in no folder.
        ResourceError: memory ran out, or the output cannot be written.
    """
    from qdit4sr.argument_names import in_python_terms
    from qdit4sr.pipeline import UpscalePipeline
    from runtime.images.folder import OUTPUT_SUFFIXES
    from runtime.images.pixels import from_pixels, to_pixels
    from runtime.sampling.settings import SamplingOptions
    from runtime.upscale import upscale as upscale_tensor
    from runtime.upscale import upscale_file
    from schemas.errors import UsageError

    if isinstance(model, str | os.PathLike):
        model = load(model)
    pipeline = model.model if isinstance(model, UpscalePipeline) else model
    options = SamplingOptions(steps, guidance, tile, overlap, color_fix, seed, fidelity)
    with in_python_terms():
        settings = options.settings(
            pipeline.sampling, patch_size=pipeline.patch_size, largest_tile=pipeline.largest_tile
        )
    if isinstance(image, str | os.PathLike):
        if output is not None:
            if Path(output).suffix.lower() not in OUTPUT_SUFFIXES:
                raise UsageError(
                    f"{output}: results are written as {', '.join(sorted(OUTPUT_SUFFIXES))}"
                )
            if all(Path(path).exists() for path in (image, output)) and Path(image).samefile(
                output
            ):
                raise UsageError(
                    f"{output} is the input and would be replaced by the result",
                    hint="choose another output",
                )
            if not Path(output).absolute().parent.is_dir():
                raise UsageError(
                    f"{output}: there is no folder {Path(output).parent}", hint="make it first"
                )
            with in_python_terms():
                upscale_file(pipeline, Path(image), Path(output), settings, progress=on_step)
            return None
        from runtime.images.alpha import on_white
        from runtime.images.image_io import read_image

        loaded = read_image(Path(image))
        rgb = on_white(loaded.rgb, loaded.alpha)
    elif output is not None:
        raise UsageError("pixels are returned, not written", hint="leave `output` out")
    else:
        rgb = from_pixels(image)
    with in_python_terms():
        return to_pixels(upscale_tensor(pipeline, rgb, settings, progress=on_step))


def build(
    checkpoint: PathLike,
    output: PathLike,
    *,
    target: str = "W4A4",
    recipe: str | None = None,
    base: PathLike | None = None,
    sensitivity: PathLike | None = None,
    force: bool = False,
    **settings: Any,
) -> "Manifest":
    """Quantize a checkpoint into a pack, without data.

    Recipes that go by sensitivities, as ``standard`` does, run the network to find them, on a GPU
    where there is one. Without ``recipe`` it is ``standard`` where that takes sensible time, and
    ``q-dit4sr``, with a warning in the log, where it does not or there is nothing to run.

    Args:
        checkpoint: a diffusers folder or a ``.safetensors`` file.
        output: the pack's folder; appears complete or not at all.
        target: mean bits, such as ``W4A4``.
        recipe: a key of `planner.recipes.RECIPES`, or None.
        base: a Stable Diffusion 3.5 folder: autoencoder, scheduler, text encoders; or a file.
        sensitivity: what ``qplan probe`` found, in place of a probe.
        force: replace an older pack.
        settings: fields of `planner.settings.BuildSettings`, such as ``global_rank=16``.

    Returns:
        The manifest of the pack.

    Raises:
        CheckpointError: the checkpoint is damaged, or of no known network.
        UsageError: the target cannot be reached, a value is wrong, the output exists, or there is
            nothing to run the network with.
        ResourceError: the disk is full.
    """
    import torch

    from artifacts.checkpoint.reader import open_checkpoint
    from artifacts.pack.writer import check_output
    from planner.build.base_model import find_base_model
    from planner.build.build import build as build_pack
    from planner.build.modulation import settle_modulation
    from planner.calibrate.device import choose_device
    from planner.moments.find import find_moments
    from planner.moments.settle import asks_for_moments, settle_moments
    from planner.probe.default_recipe import default_recipe
    from planner.probe.find import find_sensitivity
    from planner.probe.run import ProbeSettings
    from planner.recipe_choice import asked_recipe
    from planner.recipes import DEFAULT_RECIPE, recipe_settings
    from planner.target import parse_target
    from runtime.base.files import BaseFiles
    from runtime.base.folder import base_folder

    opened = open_checkpoint(Path(checkpoint))
    mean_bits = parse_target(target)
    files = () if sensitivity is None else ("sensitivity",)
    asked = asked_recipe(recipe, {*settings, *files})
    chosen = recipe_settings(asked.name if asked else DEFAULT_RECIPE, mean_bits, **settings)
    for note in opened.notes(chosen.variant):
        logger.info("%s", note)
    # A probe differentiates, whatever mode the caller is in: nothing may be an inference tensor.
    with torch.inference_mode(mode=False), base_folder(BaseFiles(_path(base))) as folder:
        parts = find_base_model(opened, folder)
        device, dtype = choose_device("auto")
        if asked is None:
            architecture = opened.architecture(chosen.variant)
            asked = default_recipe(architecture, parts, ProbeSettings(), device)
            chosen = recipe_settings(asked.name, mean_bits, **settings)
        for note in asked.notes:
            logger.warning("%s", note)
        chosen, notes = settle_modulation(
            chosen, opened.architecture(chosen.variant), parts, asked="modulation" in settings
        )
        probe = ProbeSettings()
        chosen, more = settle_moments(
            chosen,
            opened,
            parts,
            probe,
            device,
            asked=asks_for_moments(settings),
        )
        for note in [*notes, *more]:
            logger.info("%s", note)
        check_output(Path(output), force=force)  # before a probe, which takes longest
        where: dict[str, Any] = {"device": device, "dtype": dtype, "report": logger.info}
        found = find_sensitivity(_path(sensitivity), opened, chosen, parts, probe, **where)
        with tempfile.TemporaryDirectory(
            prefix=".moments-", dir=Path(output).absolute().parent
        ) as keep:
            moments = find_moments(opened, chosen, parts, probe, found, **where, keep=Path(keep))
            return build_pack(
                opened,
                Path(output),
                chosen,
                parts,
                sensitivity=found,
                moments=moments,
                force=force,
            ).manifest


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)
