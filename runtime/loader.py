"""One function for every way to name a model: a pack or a checkpoint, devices by their names."""

from pathlib import Path
from typing import Protocol

from runtime.base.files import BaseFiles
from runtime.base.folder import base_folder
from runtime.device import device_and_dtype
from runtime.load import load_full_precision, load_pack
from runtime.pipeline import Pipeline
from runtime.prompts.texts import PromptTexts
from schemas.errors import UsageError


class Loader(Protocol):
    """`load_pipeline`, or what stands in for it."""

    def __call__(
        self,
        *,
        pack: Path | None,
        full_precision: Path | None,
        variant: str | None,
        base: BaseFiles | None,
        texts: PromptTexts | None = None,
        checkpoint: Path | None = None,
        device: str,
        dtype: str,
        backend: str,
        activation_bits: int | None = None,
        memory: str = "auto",
    ) -> Pipeline:
        """Load a model."""


def load_pipeline(
    *,
    pack: Path | None,
    full_precision: Path | None = None,
    variant: str | None = None,
    base: BaseFiles | None = None,
    texts: PromptTexts | None = None,
    checkpoint: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    activation_bits: int | None = None,
    memory: str = "auto",
) -> Pipeline:
    """Load the model that the arguments name, onto the device they name.

    Args:
        pack: a pack, to be run or, with ``full_precision``, to lend its parts.
        full_precision: an unquantized checkpoint to be run, or None.
        variant: which published network the checkpoint is.
        base: what has VAE and prompts, or text encoders.
        texts: prompts that replace the model's own.
        checkpoint: source of a pack that is run, for modulation layers that it leaves out.
        device: as `device_and_dtype` takes it.
        dtype: as `device_and_dtype` takes it.
        backend: how quantized layers are computed.
        activation_bits: of every quantized layer at every step; None for the pack's bit grid.
        memory: ``auto``, ``low`` or ``fast``: whether a pack's weights stay packed on a GPU.

    Raises:
        CheckpointError: the checkpoint is damaged or of another architecture.
        PackError: the pack is damaged.
        UsageError: neither is given, a part is missing, or it cannot run here.
    """
    chosen, number_format = device_and_dtype(
        device, dtype, backend=None if full_precision is not None else backend
    )
    if full_precision is None and pack is None:
        raise UsageError("no model: give a pack or an unquantized checkpoint")
    if full_precision is not None and activation_bits is not None:
        raise UsageError("--activation-bits: a full-precision network has no quantized layers")
    if full_precision is not None and memory != "auto":
        raise UsageError(f"--memory {memory}: a full-precision network has no packed weights")
    with base_folder(base or BaseFiles()) as folder:
        if full_precision is not None:
            return load_full_precision(
                full_precision,
                pack=pack,
                base=folder,
                variant=variant,
                texts=texts,
                device=chosen,
                dtype=number_format,
            )
        assert pack is not None
        return load_pack(
            pack,
            base=folder,
            texts=texts,
            checkpoint=checkpoint,
            device=chosen,
            dtype=number_format,
            backend=backend,
            activation_bits=activation_bits,
            memory=memory,
        )
