"""From files to a running pipeline: a pack, or an unquantized checkpoint for comparison."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from artifacts.autoencoder.files import open_autoencoder
from artifacts.autoencoder.qwen import QwenAutoencoderConfig
from artifacts.checkpoint.reader import Checkpoint, open_checkpoint
from artifacts.checkpoint.sampling_defaults import read_sampling_defaults
from artifacts.checkpoint.source import check_is_source
from artifacts.family import Architecture
from artifacts.pack.modulation import tabled_tensors
from artifacts.pack.reader import Pack, open_pack
from runtime.backends import select_backend
from runtime.backends.residency import resident_backend
from runtime.backends.trial import trial_of
from runtime.memory import return_freed_memory
from runtime.network.attention import set_softmax_bits
from runtime.network.family import LatentNetwork, empty_network, load_picture_features
from runtime.network.modulation import TableIndex, install_table
from runtime.network.unread import Unread
from runtime.pipeline import Pipeline
from runtime.prompts.find import check_texts, find_prompts
from runtime.prompts.pooled import POOLED_KEPT, with_own_pooled
from runtime.prompts.texts import PromptTexts
from runtime.sampling.bit_schedule import BitSchedule, constant_bits
from runtime.sampling.qwen_autoencoder import empty_qwen_autoencoder, fold_norm
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.table_steps import table_alone
from schemas.errors import CheckpointError, PackError, UsageError

logger = logging.getLogger(__name__)

_BETWEEN_RETURNS = 16
"""Layers or tensors. Giving freed memory back takes milliseconds, and its next use page faults."""


def load_pack(
    path: Path,
    *,
    base: Path | None = None,
    texts: PromptTexts | None = None,
    checkpoint: Path | None = None,
    device: torch.device,
    dtype: torch.dtype,
    backend: str = "auto",
    activation_bits: int | None = None,
    memory: str = "auto",
) -> Pipeline:
    """Load a pack.

    Args:
        path: the pack's directory.
        base: a folder with VAE and prompts or text encoders, or an image encoder, for packs that
            hold the transformer alone.
        texts: prompts that replace the pack's.
        checkpoint: the pack's source, for modulation layers that the pack leaves out.
        device: where to run.
        dtype: of everything in the network that is not quantized.
        backend: how quantized layers are computed.
        activation_bits: of every quantized layer at every step; None for the pack's bit grid.
        memory: as `resident_backend` takes it.

    Raises:
        CheckpointError: the checkpoint is damaged.
        PackError: the pack is damaged, or lacks a part that no ``base`` provides.
        UsageError: the backend cannot run here, the checkpoint is not the pack's source, or
            activations cannot have such a width.
    """
    folders = [] if base is None else [base]
    check_texts(folders, texts or PromptTexts())
    pack = open_pack(path)
    backend = resident_backend(backend, memory, pack, device, dtype)
    source = _source_of(pack, checkpoint)
    hint = _pack_hint(path, pack.architecture)
    vae_folders = [pack.vae_dir, None if base is None else base / "vae"]
    vae = _vae(vae_folders, device, pack.architecture, hint)
    picture_features = load_picture_features(folders, device, pack.architecture)
    # Before the network: text encoders may be larger, and are gone again when it comes.
    prompts, captions = find_prompts(
        pack.prompts(),
        folders,
        texts or PromptTexts(),
        pack.architecture,
        hint=hint,
    )
    table = table_alone(pack.manifest, with_source=source is not None)
    if table is not None:
        prompts, captions, changed = with_own_pooled(prompts, captions, pack.prompts() or {})
        if changed:
            logger.info("%s", POOLED_KEPT)
    grid = BitSchedule(pack.bit_grid)
    bits_at = grid if activation_bits is None else constant_bits(grid, activation_bits)
    return Pipeline(
        architecture=pack.architecture,
        network=network_from_pack(pack, device=device, dtype=dtype, backend=backend, source=source),
        vae=vae,
        prompts=prompts.to(device, dtype),
        captions=captions,
        bits_at=bits_at,
        sampling=UpscaleSettings.from_manifest(pack.manifest.sampling),
        table=table,
        picture_features=picture_features,
        device=device,
        dtype=dtype,
    )


def load_full_precision(
    path: Path,
    *,
    pack: Path | None = None,
    base: Path | None = None,
    variant: str | None = None,
    texts: PromptTexts | None = None,
    device: torch.device,
    dtype: torch.dtype,
) -> Pipeline:
    """Load an unquantized checkpoint, to be sampled like a pack.

    VAE, prompts and sampling defaults come from ``pack`` when it is given, so that both run on the
    same ones; otherwise from the checkpoint's folder or ``base``.

    Args:
        path: a diffusers folder or a ``.safetensors`` file.
        pack: lends its parts.
        base: a folder with VAE and prompts or text encoders, or an image encoder.
        variant: which published network it is; None for the one that the checkpoint's name says,
            the pack's, or the family's first.
        texts: prompts that replace those.
        device: where to run.
        dtype: of the network.

    Raises:
        CheckpointError: the checkpoint is damaged or of another architecture.
        PackError: ``pack`` is damaged.
        UsageError: a part is missing.
    """
    checkpoint = open_checkpoint(path)
    for note in checkpoint.notes(variant):
        logger.info("%s", note)
    folders = [folder for folder in (base, checkpoint.parts_dir) if folder is not None]
    check_texts(folders, texts or PromptTexts())
    opened = None if pack is None else open_pack(pack)
    lent = None
    if opened is not None:
        if opened.config != checkpoint.config:
            raise UsageError(f"{path} and {pack} are networks of different shapes")
        lent = opened.variant
    vae_folders = [None if opened is None else opened.vae_dir]
    vae_folders += [folder / "vae" for folder in folders]
    architecture = checkpoint.architecture(variant or checkpoint.variant or lent)
    title = architecture.family.base_title
    hint = f"give --base with a {title} folder, or --pack with a pack"
    sampling = (
        opened.manifest.sampling
        if opened is not None
        else read_sampling_defaults(checkpoint.parts_dir, architecture)
    )
    vae = _vae(vae_folders, device, architecture, hint)
    picture_features = load_picture_features(folders, device, architecture)
    prompts, captions = find_prompts(
        None if opened is None else opened.prompts(),
        folders,
        texts or PromptTexts(),
        architecture,
        hint=hint,
    )
    return Pipeline(
        architecture=architecture,
        network=network_from_checkpoint(
            checkpoint, architecture.variant, device=device, dtype=dtype
        ),
        vae=vae,
        prompts=prompts.to(device, dtype),
        captions=captions,
        bits_at=lambda timestep: None,
        sampling=UpscaleSettings.from_manifest(sampling),
        picture_features=picture_features,
        device=device,
        dtype=dtype,
    )


def network_from_checkpoint(
    checkpoint: Checkpoint, variant: str | None, *, device: torch.device, dtype: torch.dtype
) -> LatentNetwork:
    """Build the unquantized network of a checkpoint.

    Raises:
        CheckpointError: a tensor is damaged.
        UsageError: its family has no such variant.
    """
    architecture = checkpoint.architecture(variant)
    network = empty_network(architecture)
    state = {}
    for done, name in enumerate(checkpoint.names):
        state[name] = _held(checkpoint.tensor(name), name, architecture, device, dtype)
        if done % _BETWEEN_RETURNS == 0:
            return_freed_memory()
    network.load_state_dict(state, assign=True)
    return_freed_memory()
    return network.to(device).eval().requires_grad_(False)


def network_from_pack(
    pack: Pack,
    *,
    device: torch.device,
    dtype: torch.dtype,
    backend: str = "auto",
    source: Checkpoint | None = None,
    look_up: bool = True,
) -> LatentNetwork:
    """Build the network of a pack: quantized layers on ``backend``, the rest in ``dtype``.

    Tensors are read one at a time; memory holds the network and one tensor more.

    Args:
        pack: the pack.
        device: where to run.
        dtype: of everything that is not quantized.
        backend: how quantized layers are computed.
        source: has the modulation layers that the pack leaves out; None does without them.
        look_up: take modulations from the pack's table where it has one; False computes them, for
            whoever watches the layers.

    Raises:
        CheckpointError: a tensor of ``source`` is damaged.
        PackError: the pack changed, or does not fill the network.
        UsageError: the backend cannot run here.
    """
    chosen = select_backend(backend, device, trial_of(pack, dtype))
    network = empty_network(pack.architecture)
    set_softmax_bits(network, pack.manifest.quantizer.softmax_bits)
    tabled = tabled_tensors(pack.manifest, pack.architecture)
    _leave_out(network, pack.manifest.omitted)
    if source is None:
        _leave_out(network, tabled)
    for made, name in enumerate(pack.layer_names):
        layer = chosen.make_layer(pack.layer(name), pack.manifest.quantizer)
        network.set_submodule(name, layer.to(device))
        if made % _BETWEEN_RETURNS == 0:
            return_freed_memory()
    state = {
        name: _held(pack.tensor(name), name, pack.architecture, device, dtype)
        for name in pack.tensor_names
    }
    if source is not None:
        state |= {name: source.tensor(name).to(device, dtype) for name in sorted(tabled)}
    network.load_state_dict(state, strict=False, assign=True)
    empty = [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    unknown = sorted(set(state) - set(network.state_dict()))
    if empty or unknown:
        raise PackError(
            f"{pack.path}: does not fill the network: missing {', '.join(empty[:3]) or 'nothing'};"
            f" unknown {', '.join(unknown[:3]) or 'nothing'}"
        )
    complete = source is not None or not tabled
    record = pack.manifest.modulation
    if record is not None and (look_up or not complete):
        index = TableIndex(
            torch.tensor(record.timesteps),
            pack.pooled_prompts().to(dtype),
            complete=complete,
        )
        layers = pack.architecture.modulations.layers
        tables = {name: _rows(pack, name, dtype).to(device) for name in layers}
        install_table(network, index.to(device), tables)
    return_freed_memory()
    return network.to(device).eval().requires_grad_(False)


def _source_of(pack: Pack, checkpoint: Path | None) -> Checkpoint | None:
    """The pack's source, where something is to be read from it.

    Raises:
        CheckpointError: the checkpoint is damaged.
        UsageError: it is not the pack's source.
    """
    if checkpoint is None:
        return None
    if not tabled_tensors(pack.manifest, pack.architecture):
        logger.info("%s has all its layers, nothing is read from %s", pack.path, checkpoint)
        return None
    source = open_checkpoint(checkpoint)
    check_is_source(source, pack.manifest)
    return source


def _rows(pack: Pack, layer: str, dtype: torch.dtype) -> Tensor:
    """A layer's rows, in the network's dtype where that takes no more room."""
    rows = pack.modulation_rows(layer)
    return rows.to(dtype) if dtype.itemsize <= rows.dtype.itemsize else rows


def _held(
    tensor: Tensor, name: str, architecture: Architecture, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """A tensor as the network holds it: in its dtype, unless the network reads but a part of it.

    Of a large table that could have been rebuilt, a pass converts the part that it reads.
    """
    return tensor.to(device, tensor.dtype if name in architecture.family.rebuilt else dtype)


def _leave_out(network: nn.Module, omitted: Iterable[str]) -> None:
    """Put `Unread` in place of the modules whose parameters the pack left out."""
    for name in sorted({tensor.rpartition(".")[0] for tensor in omitted}):
        network.set_submodule(name, Unread(name))


def _vae(
    folders: list[Path | None], device: torch.device, architecture: Architecture, hint: str
) -> AutoencoderKL:
    """The autoencoder of the first folder that has one."""
    folder = next((f for f in folders if f is not None and (f / "config.json").is_file()), None)
    if folder is None:
        raise UsageError("there is no VAE to encode and decode images with", hint=hint)
    return load_vae(folder, device, latent_channels=architecture.latent_size.channels)


def load_vae(
    folder: Path, device: torch.device, *, latent_channels: int | None = None
) -> AutoencoderKL:
    """Load the autoencoder in a diffusers folder, in float32.

    Args:
        folder: where it is.
        device: where to.
        latent_channels: of the network that works on its latents; None does not compare.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not fit one another or the
            network.
    """
    opened = open_autoencoder(folder, error=CheckpointError, latent_channels=latent_channels)
    config = opened.config
    state = {name: tensor.to(device, torch.float32) for name, tensor in opened.tensors()}
    if isinstance(config, QwenAutoencoderConfig):
        vae, state = empty_qwen_autoencoder(config), fold_norm(state, config)
    else:
        with torch.device("meta"):
            vae = AutoencoderKL(**config.model_dump())
    vae.load_state_dict(state, assign=True)
    if device.type == "cpu" and not isinstance(config, QwenAutoencoderConfig):
        # oneDNN convolves this order faster, and keeps fewer copies (docs/backends.md).
        vae = vae.to(memory_format=torch.channels_last)
    return vae.eval().requires_grad_(False)


def _pack_hint(path: Path, architecture: Architecture) -> str:
    title = architecture.family.base_title
    return f"{path} holds the transformer alone: give --base with a {title} folder"
