"""What a calibration runs: the pipeline, weights quantized or not, activations not."""

import hashlib
from pathlib import Path

import torch

from artifacts.autoencoder.files import CONFIG, read_config
from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import IMAGE_ENCODER_FOLDER, Architecture
from artifacts.files.hashing import sha256_of
from artifacts.files.safetensors_io import TensorSpec, tensor_bytes
from artifacts.pack.file_names import VAE_FILES, VAE_FOLDER
from artifacts.pack.reader import Pack
from planner.build.base_model import BaseModel
from runtime.images.resizing import SCALE
from runtime.load import load_vae, network_from_checkpoint, network_from_pack
from runtime.network.family import LatentNetwork, load_picture_features
from runtime.pipeline import Pipeline
from runtime.prompts.find import find_prompts
from runtime.prompts.texts import PromptTexts
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
    folder = vae_folder(base)
    vae = load_vae(folder, device, latent_channels=channels)
    prompts, _ = find_prompts(base.prompts, [], PromptTexts(), architecture, hint="")
    return Pipeline(
        architecture=architecture,
        network=network,
        vae=vae,
        prompts=prompts.to(device, dtype),
        picture_features=load_picture_features([folder.parent], device, architecture),
        bits_at=lambda _timestep: None,
        sampling=UpscaleSettings.from_manifest(base.sampling),
        device=device,
        dtype=dtype,
    )


def vae_folder(base: BaseModel) -> Path:
    """Where the autoencoder is; also makes sure that the network can be run.

    Raises:
        UsageError: VAE, prompts or image encoder are missing, or there are too many steps.
    """
    if base.folder is None or not base.can_run:
        needed = "image encoder" if base.reads_picture else "prompts"
        raise UsageError(
            f"a calibration runs the whole pipeline and needs VAE and {needed}",
            hint="give --base with a folder that has them",
        )
    if base.reads_picture and base.sampling.steps != 1:
        # A step's end is told to the network along with the features, and the probe's loop, which
        # serves all families, has one of these for all steps.
        raise UsageError(
            f"a network that reads features of the picture is measured in one step, not"
            f" {base.sampling.steps}",
            hint="--steps 1",
        )
    return base.folder / VAE_FOLDER


def base_digest(base: BaseModel) -> str:
    """Hash of what a calibration runs beside the transformer: autoencoder, prompts or encoder.

    Raises:
        UsageError: one of them is missing.
    """
    digest = hashlib.sha256()
    folder = vae_folder(base).parent
    files = [folder / name for name in VAE_FILES]
    if base.reads_picture:
        files += sorted(f for f in (folder / IMAGE_ENCODER_FOLDER).iterdir() if f.is_file())
    for file in files:
        digest.update(sha256_of(file).encode())
    for name, tensor in sorted((base.prompts or {}).items()):
        digest.update(f"{name} {TensorSpec.of(tensor)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
