"""What a calibration runs: the pipeline, weights quantized or not, activations not."""

import hashlib
from pathlib import Path

import torch

from artifacts.autoencoder.files import CONFIG, read_config
from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import Architecture
from artifacts.files.hashing import sha256_of
from artifacts.files.safetensors_io import TensorSpec, tensor_bytes
from artifacts.pack.file_names import VAE_FILES, VAE_FOLDER
from artifacts.pack.reader import Pack
from planner.build.base_model import BaseModel
from planner.recipe_choice import CANNOT_MEASURE, MEASURED_ELSEWHERE
from runtime.images.resizing import SCALE
from runtime.load import load_vae, network_from_checkpoint, network_from_pack
from runtime.network.family import LatentNetwork
from runtime.pipeline import Pipeline
from runtime.prompts.find import prompts_from
from runtime.sampling.settings import UpscaleSettings
from schemas.errors import CheckpointError, UsageError


def default_crop_px(base: BaseModel) -> int:
    """The low-resolution crop whose enlargement fills exactly one tile of the network.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
    """
    return base.sampling.tile_latent * vae_factor(base) // SCALE


def vae_factor(base: BaseModel) -> int:
    """Image pixels that one latent pixel of the autoencoder spans along a side; it is not loaded.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
        CheckpointError: the autoencoder's configuration is damaged.
    """
    return read_config(vae_folder(base) / CONFIG, error=CheckpointError).factor


def quantized_pipeline(
    pack: Pack, base: BaseModel, device: torch.device, dtype: torch.dtype
) -> Pipeline:
    """The network of a pack, its activations unquantized, with the parts of ``base``.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
    """
    # Layers are watched: those that the pack has are computed, also where it has a table.
    network = network_from_pack(
        pack, device=device, dtype=dtype, backend="reference", look_up=False
    )
    return _pipeline(pack.architecture, network, base, device, dtype)


def full_precision_pipeline(
    checkpoint: Checkpoint,
    variant: str | None,
    base: BaseModel,
    device: torch.device,
    dtype: torch.dtype,
) -> Pipeline:
    """The unquantized network of a checkpoint, with the parts of ``base``.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
    """
    network = network_from_checkpoint(checkpoint, variant, device=device, dtype=dtype)
    return _pipeline(checkpoint.architecture(variant), network, base, device, dtype)


def _pipeline(
    architecture: Architecture,
    network: LatentNetwork,
    base: BaseModel,
    device: torch.device,
    dtype: torch.dtype,
) -> Pipeline:
    channels = architecture.latent_size.channels
    vae = load_vae(vae_folder(base), device, latent_channels=channels)
    return Pipeline(
        architecture=architecture,
        network=network,
        vae=vae,
        prompts=prompts_from(base.prompts or {}).to(device, dtype),
        bits_at=lambda _timestep: None,
        sampling=UpscaleSettings.from_manifest(base.sampling),
        device=device,
        dtype=dtype,
    )


def vae_folder(base: BaseModel) -> Path:
    """Where the autoencoder is; also makes sure that there are prompts.

    Raises:
        UsageError: VAE or prompts are missing, or the network reads no prompts.
    """
    if base.reads_picture:
        raise UsageError(f"a calibration {CANNOT_MEASURE}", hint=MEASURED_ELSEWHERE)
    if base.folder is None or base.prompts is None:
        raise UsageError(
            "a calibration runs the whole pipeline and needs VAE and prompts",
            hint="give --base with a Stable Diffusion 3.5 folder",
        )
    return base.folder / VAE_FOLDER


def base_digest(base: BaseModel) -> str:
    """Hash of what a calibration runs beside the transformer: autoencoder and prompts.

    Raises:
        UsageError: one of them is missing.
    """
    digest = hashlib.sha256()
    folder = vae_folder(base).parent
    for name in VAE_FILES:
        digest.update(sha256_of(folder / name).encode())
    for name, tensor in sorted((base.prompts or {}).items()):
        digest.update(f"{name} {TensorSpec.of(tensor)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
