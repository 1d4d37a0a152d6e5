"""Latents that trained networks make, with the pictures they should have been.

A decoder is trained on latents of photos and meets those that a network makes. They differ: what
the network could not know is missing or invented in them, and patches show. The decoder can be
trained for them once the network is there (`training.refined_decoder`).

They are made ahead in shards on disk: sampling takes many times as long as decoding. A shard
says what it was made of, and is made again where that is something else now.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.load import load_full_precision
from runtime.network.family import LatentNetwork
from runtime.prompts.named import NAMED_PROMPTS
from runtime.sampling.sampler import initial_latent
from runtime.sampling.schedule import euler_schedule
from runtime.sampling.settings import UpscaleSettings
from training.ahead import made_ahead
from training.crops import Crops, to_batch
from training.device import multiplies_bfloat16
from training.pairs import encode, make_pairs
from training.prompts import NAMES, PromptTable

CROP_PX = 128
SHARD = 64
"""Crops of a shard."""
AT_ONCE = 8
"""Of them that go through network and encoder together, on a processor."""
AT_ONCE_ON_GPU = 64
FIRST_CROPS = 500_000_000
"""Crops are numbered from here on: smaller numbers are those that networks are trained on."""
ORIGIN = "made_of"
"""Key of a shard's metadata: what it was made of."""


@dataclass(frozen=True)
class Generated:
    """Samples.

    Attributes:
        latent: scaled latents as a network made them, bfloat16 [n, C, h, w].
        encoded: those of the wanted pictures, likewise.
        target: the wanted pictures, uint8 [n, H, W, 3].
        prompt: indices into `training.prompts.PROMPTS` [n].
    """

    latent: Tensor
    encoded: Tensor
    target: Tensor
    prompt: Tensor


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as its folder has it.

    Attributes:
        network: frozen, in bfloat16 where the device multiplies it.
        prompts: what its samples may ask for, in the same.
        settings: how it is sampled.
    """

    network: LatentNetwork
    prompts: PromptTable
    settings: UpscaleSettings

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "TrainedNetwork":
        """Read an exported model.

        Raises:
            ValueError: it is sampled with guidance, which the bundled networks are not.
        """
        dtype = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
        pipeline = load_full_precision(folder, device=device, dtype=dtype)
        if pipeline.sampling.guidance != 1:
            raise ValueError(f"{folder}: samples are made without guidance")
        tensors = load_file(folder / NAMED_PROMPTS)
        embeds, pooled = (
            torch.stack([tensors[f"{name}.{part}"] for name in NAMES]).to(device, dtype)
            for part in ("embeds", "pooled")
        )
        return cls(pipeline.network, PromptTable(embeds, pooled), pipeline.sampling)

    @torch.inference_mode()
    def sample(self, control: Tensor, prompt: Tensor) -> Tensor:
        """Latents [n, C, h, w] from control latents, float32, by torch's random numbers.

        Args:
            control: scaled latents of degraded pictures [n, C, h, w].
            prompt: indices into the prompts [n].
        """
        schedule = euler_schedule(
            self.settings.steps, self.settings.shift, self.settings.start_sigma
        )
        noise = torch.randn(control.shape).to(control.device)
        latent = initial_latent(noise, control, schedule.sigmas[0])
        embeds, pooled = self.prompts.embeds[prompt], self.prompts.pooled[prompt]
        for timestep, change in zip(schedule.timesteps, schedule.sigmas.diff(), strict=True):
            times = timestep.to(latent.device).expand(len(latent))
            velocity = self.network(
                latent.to(embeds.dtype), control.to(embeds.dtype), embeds, pooled, times, None
            )
            latent = latent + change.to(latent.device) * velocity.float()
        return latent


def generate_shards(
    crops: Crops,
    vae: AutoencoderKL,
    folders: Sequence[Path],
    count: int,
    out: Path,
    *,
    crop_px: int = CROP_PX,
    size: int = SHARD,
    workers: int = 0,
) -> list[Path]:
    """Make ``count`` shards, where they are not there yet; returns their files.

    A shard depends on its number, the photos and their seed, crop and shard size, the weights of
    network and encoder, and the kind of device.

    Args:
        crops: of training photos.
        vae: the autoencoder that all the networks share, on the device that computes.
        folders: exported models, which make shards in turn.
        count: of the shards.
        out: folder for them.
        crop_px: side of a crop.
        size: crops of a shard.
        workers: processes that degrade the crops; 0 to do it in this one.

    Raises:
        ValueError: a model is sampled with guidance.
    """
    encoder = _digest(
        tensor.cpu().numpy().tobytes() for tensor in vae.encoder.state_dict().values()
    )
    weights = {folder: _digest(_transformer(folder)) for folder in folders}
    files = [out / f"generated-{index}.safetensors" for index in range(count)]
    missing = {}
    for index in range(count):
        known = [weights[folders[index % len(folders)]], encoder, vae.device.type, crops.seed]
        origin = json.dumps([*known, crop_px, size, len(crops.photos)])
        if _origin(files[index]) != origin:
            missing[index] = origin
    networks: dict[Path, TrainedNetwork] = {}
    make = partial(_pictures, crops, crop_px, size)
    pictures = made_ahead(make, list(missing), min(workers, len(missing)))
    for (index, origin), found in zip(missing.items(), pictures, strict=True):
        folder = folders[index % len(folders)]
        if folder not in networks:
            networks[folder] = TrainedNetwork.load(folder, vae.device)
        generated = _generate(vae, networks[folder], index, *found)
        out.mkdir(parents=True, exist_ok=True)
        unfinished = files[index].with_suffix(".partial")
        tensors = {name: t.cpu().contiguous() for name, t in vars(generated).items()}
        save_file(tensors, unfinished, metadata={ORIGIN: origin})
        unfinished.replace(files[index])
        print(f"{files[index].name}: {size} crops by {folder.name}", flush=True)
    return files


def _transformer(folder: Path) -> Iterator[bytes]:
    for file in sorted((folder / "transformer").glob("*.safetensors")):
        yield file.read_bytes()


def _digest(parts: Iterable[bytes]) -> str:
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


def _pictures(crops: Crops, crop_px: int, size: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, degraded crops and prompts of shard ``number``."""
    targets, controls, prompts = make_pairs(crops, crop_px, FIRST_CROPS + number, size)
    return torch.from_numpy(targets), torch.from_numpy(controls), torch.tensor(prompts)


def _generate(
    vae: AutoencoderKL,
    network: TrainedNetwork,
    index: int,
    targets: Tensor,
    controls: Tensor,
    prompt: Tensor,
) -> Generated:
    """Samples with the random numbers of shard ``index``."""
    torch.manual_seed(index)
    at_once = AT_ONCE if vae.device.type == "cpu" else AT_ONCE_ON_GPU
    latents, encoded = [], []
    for start in range(0, len(prompt), at_once):
        part = slice(start, start + at_once)
        control = encode(vae, to_batch(list(controls[part].numpy())))
        encoded.append(encode(vae, to_batch(list(targets[part].numpy()))).bfloat16())
        latents.append(network.sample(control, prompt[part].to(control.device)).bfloat16())
    return Generated(torch.cat(latents), torch.cat(encoded), targets, prompt)


def load_shard(file: Path) -> Generated:
    """Read a shard back."""
    return Generated(**load_file(file))


def joined(parts: Sequence[Generated]) -> Generated:
    """All samples of ``parts`` as one."""
    names = vars(parts[0])
    return Generated(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})
