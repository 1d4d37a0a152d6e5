"""Which files a pack may consist of. Nothing heavy is imported."""

import re
from collections.abc import Collection

MANIFEST = "manifest.json"
BIT_GRID = "bit_grid.json"
README = "README.md"
PROMPTS = "prompts.safetensors"
TRANSFORMER = "transformer.safetensors"
TRANSFORMER_INDEX = "transformer.safetensors.index.json"
MODULATION = "modulation.safetensors"
VAE_FOLDER = "vae"
SCHEDULER_FOLDER = "scheduler"
VAE_FILES = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors")
SCHEDULER_FILES = ("scheduler/scheduler_config.json",)

COMPANION_FILES = (*VAE_FILES, *SCHEDULER_FILES)
"""Files of the base model, copied into a pack as diffusers writes them."""
GIT = ".git"
HUB_NAMES = frozenset({GIT, ".gitattributes", ".cache"})
"""What model hubs and their clients add beside a pack."""
_LITTER = re.compile(r"\._.*|\.nfs.*|\.DS_Store|Thumbs\.db|desktop\.ini|\.gitattributes|\.cache")

MAX_SHARDS = 99999
_SHARD = re.compile(r"transformer-(\d{5})-of-(\d{5})\.safetensors")


def shard_name(index: int, count: int) -> str:
    """Name of the transformer's tensor file ``index`` (from 1) of ``count``."""
    return f"transformer-{index:05d}-of-{count:05d}.safetensors"


def transformer_files(names: Collection[str]) -> list[str]:
    """The transformer's tensor files among ``names``, in order.

    Raises:
        ValueError: there are none, some are missing, or a single file stands beside shards.
    """
    shards = sorted(name for name in names if _SHARD.fullmatch(name))
    if TRANSFORMER in names:
        if shards or TRANSFORMER_INDEX in names:
            raise ValueError(f"{TRANSFORMER} stands beside shards")
        return [TRANSFORMER]
    if not shards:
        raise ValueError(f"{TRANSFORMER} is missing")
    count = int(shards[0].removesuffix(".safetensors")[-5:])
    # Compared by length first: a file name must not decide how long a list gets.
    if len(shards) != count or shards != [shard_name(i + 1, count) for i in range(count)]:
        raise ValueError(f"shards of {count} expected, found {', '.join(shards[:5])}")
    if TRANSFORMER_INDEX not in names:
        raise ValueError(f"{TRANSFORMER_INDEX} is missing")
    return shards


def network_files(names: Collection[str]) -> list[str]:
    """Files among ``names`` that hold the network: the transformer's, and the modulation table.

    Raises:
        ValueError: as `transformer_files`.
    """
    return [*transformer_files(names), *([MODULATION] if MODULATION in names else [])]


def is_known_file(name: str) -> bool:
    """Whether ``name`` is a file of the format, the manifest excepted."""
    fixed = {BIT_GRID, README, PROMPTS, TRANSFORMER, TRANSFORMER_INDEX, MODULATION}
    fixed.update(COMPANION_FILES)
    return name in fixed or _SHARD.fullmatch(name) is not None


def is_litter(name: str) -> bool:
    """Whether systems and hubs leave files of this name everywhere, and nobody misses them."""
    return _LITTER.fullmatch(name.rpartition("/")[2]) is not None
