"""Samples that trained networks make, in shards on disk.

Sampling takes many times as long as training on what it gives, so it is done ahead. A shard
says what it was made of, and is made again where that is something else now.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeVar

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from artifacts.checkpoint.sampling_defaults import SAMPLING_FILE
from runtime.prompts.named import NAMED_PROMPTS
from training.ahead import made_ahead
from training.crops import Crops
from training.pairs import make_pairs
from training.sampled import TrainedNetwork

CROP_PX = 128
SHARD = 64
"""Crops of a shard."""
AT_ONCE = 8
"""Of them that go through network and encoder together, on a processor."""
AT_ONCE_ON_GPU = 64
ORIGIN = "made_of"
"""Key of a shard's metadata: what it was made of."""


class Made(Protocol):
    """What a shard holds: a dataclass of tensors, a sample a row.

    Attributes:
        name: of its files.
        first_crops: crops and noise are numbered from here on; below 500,000,000 are those that
            networks are trained on.
    """

    name: ClassVar[str]
    first_crops: ClassVar[int]

    def __init__(self, **tensors: Tensor) -> None:
        """Of the tensors by name."""

    @classmethod
    def make(
        cls,
        vae: AutoencoderKL,
        network: TrainedNetwork,
        targets: Tensor,
        controls: Tensor,
        prompt: Tensor,
    ) -> Self:
        """Samples, by torch's random numbers.

        Args:
            vae: the autoencoder, on the device that computes.
            network: what makes them, there too.
            targets: the wanted pictures, uint8 [n, H, W, 3].
            controls: the degraded pictures, likewise.
            prompt: indices into `training.prompts.PROMPTS` [n].
        """


M = TypeVar("M", bound=Made)


def make_shards(
    made: type[M],
    crops: Crops,
    vae: AutoencoderKL,
    folders: Sequence[Path],
    count: int,
    out: Path,
    *,
    crop_px: int = CROP_PX,
    size: int = SHARD,
    workers: int = 0,
) -> M:
    """All samples of ``count`` shards, which are made where they are not there yet.

    A shard depends on its number, the photos and their seed, crop and shard size, the model's
    network, prompts and way of sampling, the encoder, and the kind of device; of the photos it
    remembers how many there are.

    Args:
        made: what they hold.
        crops: of training photos.
        vae: the autoencoder that all the networks share, on the device that computes.
        folders: exported models, which make shards in turn.
        count: of the shards.
        out: folder for them.
        crop_px: side of a crop.
        size: crops of a shard.
        workers: processes that degrade the crops; 0 to do it in this one.

    Raises:
        GuidedModelError: a model is sampled with guidance.
    """
    encoder = digest(tensor.cpu().numpy().tobytes() for tensor in vae.encoder.state_dict().values())
    scaling = [vae.config.scaling_factor, vae.config.shift_factor]
    models = {folder: digest(sampled_by(folder)) for folder in folders}
    files = [out / f"{made.name}-{index}.safetensors" for index in range(count)]
    missing = {}
    for index in range(count):
        known = [models[folders[index % len(folders)]], encoder, scaling, vae.device.type]
        origin = json.dumps([*known, crops.seed, crop_px, size, len(crops.photos)])
        if _origin(files[index]) != origin:
            missing[index] = origin
    networks: dict[Path, TrainedNetwork] = {}
    make = partial(_pictures, crops, crop_px, size, made.first_crops)
    pictures = made_ahead(make, list(missing), min(workers, len(missing)))
    for (index, origin), found in zip(missing.items(), pictures, strict=True):
        folder = folders[index % len(folders)]
        if folder not in networks:
            networks[folder] = TrainedNetwork.load(folder, vae.device)
        shard = _shard(made, vae, networks[folder], index, *found)
        out.mkdir(parents=True, exist_ok=True)
        unfinished = files[index].with_suffix(".partial")
        tensors = {name: t.cpu().contiguous() for name, t in vars(shard).items()}
        save_file(tensors, unfinished, metadata={ORIGIN: origin})
        unfinished.replace(files[index])
        print(f"{files[index].name}: {size} crops by {folder.name}", flush=True)
    return joined(made, [made(**load_file(file)) for file in files])


def sampled_by(folder: Path) -> Iterator[bytes]:
    """What the samples of an exported model depend on, its autoencoder aside."""
    for file in sorted((folder / "transformer").iterdir()):
        yield file.read_bytes()
    for name in (SAMPLING_FILE, NAMED_PROMPTS):
        yield (folder / name).read_bytes()


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of all ``parts``, in hexadecimal."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _origin(file: Path) -> str | None:
    """What a shard says of itself; None where there is none."""
    if not file.exists():
        return None
    with safe_open(file, "pt") as shard:
        metadata = shard.metadata() or {}
    return metadata.get(ORIGIN)


def _pictures(
    crops: Crops, crop_px: int, size: int, first: int, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, degraded crops and prompts of shard ``number``."""
    targets, controls, prompts = make_pairs(crops, crop_px, first + number, size)
    return torch.from_numpy(targets), torch.from_numpy(controls), torch.tensor(prompts)


def _shard(
    made: type[M],
    vae: AutoencoderKL,
    network: TrainedNetwork,
    index: int,
    targets: Tensor,
    controls: Tensor,
    prompt: Tensor,
) -> M:
    """Samples with the random numbers of shard ``index``."""
    torch.manual_seed(made.first_crops + index)
    at_once = AT_ONCE if vae.device.type == "cpu" else AT_ONCE_ON_GPU
    parts = [slice(start, start + at_once) for start in range(0, len(prompt), at_once)]
    return joined(
        made, [made.make(vae, network, targets[p], controls[p], prompt[p]) for p in parts]
    )


def joined(made: type[M], parts: Sequence[M]) -> M:
    """All samples of ``parts`` as one."""
    names = vars(parts[0])
    return made(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})
