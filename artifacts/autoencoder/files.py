"""A diffusers folder with an autoencoder, checked before anything is allocated."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from artifacts.autoencoder.config import CLASS_NAME, AutoencoderConfig
from artifacts.autoencoder.layout import tensor_shapes
from artifacts.autoencoder.qwen import QWEN_CLASS_NAME, QwenAutoencoderConfig, qwen_tensor_shapes
from artifacts.codec.values import wrong_value
from artifacts.files.safetensors_io import FLOAT_DTYPES, Header, read_header
from schemas.errors import QPackError
from schemas.json_io import read_json_file, validate

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHOWN_NAMES = 3
AnyConfig = AutoencoderConfig | QwenAutoencoderConfig
_CONFIGS: dict[str, type[AutoencoderConfig] | type[QwenAutoencoderConfig]] = {
    CLASS_NAME: AutoencoderConfig,
    QWEN_CLASS_NAME: QwenAutoencoderConfig,
}
_OLDER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Linear layers of attention as diffusers called them until 2023, and still does in files of Stable
Diffusion 1 and 2."""


@dataclass(frozen=True)
class Autoencoder:
    """An opened autoencoder; tensors are read when asked for.

    Attributes:
        folder: where it is.
        config: its configuration.
        header: of its weights; exactly the tensors that ``config`` has.
        error: what damage is raised as.
    """

    folder: Path
    config: AnyConfig
    header: Header
    error: type[QPackError]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Read and check one tensor after the other, in the dtype they are stored in.

        Raises:
            QPackError: (as ``error``) a value is not finite or far too large, or the file changed.
        """
        for name in self.header.tensors:
            tensor = self.header.read(name, error=self.error)
            wrong = wrong_value(tensor)
            if wrong:
                raise self.error(f"{self.header.path}: tensor {name} has {wrong}")
            yield name, tensor

    def check_values(self) -> None:
        """Read every tensor once; memory holds one at a time.

        Raises:
            QPackError: as `tensors`.
        """
        for _ in self.tensors():
            pass


def open_autoencoder(
    folder: Path, *, error: type[QPackError], latent_channels: int | None = None
) -> Autoencoder:
    """Open the autoencoder in ``folder``; reads its configuration and the header of its weights.

    Args:
        folder: with `CONFIG` and `WEIGHTS`, as diffusers writes them.
        error: the exception type to raise.
        latent_channels: of the network that works on its latents; None does not compare.

    Raises:
        QPackError: (as ``error``) a file is missing or damaged, is of another kind of autoencoder,
            or the two do not fit one another or the network.
    """
    config = read_config(folder / CONFIG, error=error)
    if latent_channels is not None and config.latent_channels != latent_channels:
        raise error(
            f"{folder / CONFIG}: latent_channels is {config.latent_channels}, but the transformer"
            f" works on {latent_channels}",
            hint="this is the autoencoder of another model",
        )
    header = _renamed(read_header(folder / WEIGHTS, error=error))
    expected = (
        tensor_shapes(config)
        if isinstance(config, AutoencoderConfig)
        else qwen_tensor_shapes(config)
    )
    differing = sorted(set(expected) ^ set(header.tensors))
    if differing:
        what = "lacks" if differing[0] in expected else "does not belong there:"
        more = f" ({len(differing)} names differ)" if len(differing) > 1 else ""
        raise error(f"{header.path}: {what} {differing[0][:200]}{more}")
    for name, shape in expected.items():
        info = header.tensors[name]
        if info.shape != shape or info.dtype not in FLOAT_DTYPES:
            raise error(
                f"{header.path}: tensor {name} is {info.spec}, but by {CONFIG} must be floats"
                f" {list(shape)}"
            )
    return Autoencoder(folder, config, header, error)


def _renamed(header: Header) -> Header:
    """The header with today's names in place of older ones."""

    def current(name: str) -> str:
        module, _, last = name.rpartition(".")
        parent, _, layer = module.rpartition(".")
        if ".attentions." not in name or layer not in _OLDER_NAMES:
            return name
        return f"{parent}.{_OLDER_NAMES[layer]}.{last}"

    renamed = {current(name): info for name, info in header.tensors.items()}
    # Where a file has a layer under both names, both stay, and one of them does not belong there.
    return replace(header, tensors=renamed) if len(renamed) == len(header.tensors) else header


def read_config(file: Path, *, error: type[QPackError]) -> AnyConfig:
    """Read a ``config.json``; keys that start with ``_`` are diffusers' own notes.

    Raises:
        QPackError: (as ``error``) it cannot be read, or is no configuration of a known kind.
    """
    content = read_json_file(file, where=str(file), error=error)
    if not isinstance(content, dict):
        raise error(f"{file}: not a JSON object")
    kind = content.get("_class_name", CLASS_NAME)
    if not isinstance(kind, str) or kind not in _CONFIGS:
        raise error(f"{file}: an autoencoder of class {str(kind)[:200]!r}, not {CLASS_NAME}")
    kept = {key: value for key, value in content.items() if not key.startswith("_")}
    return validate(_CONFIGS[kind], kept, where=str(file), error=error)
