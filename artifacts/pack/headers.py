"""What the tensor files of a pack hold, against what its manifest says."""

from collections.abc import Mapping
from pathlib import Path

from artifacts.autoencoder.files import open_autoencoder
from artifacts.codec.layer_parts import allowed_values
from artifacts.codec.values import Values, wrong_value
from artifacts.family import Architecture
from artifacts.files.safetensors_io import Header, TensorSpec, read_header
from artifacts.pack.difference import check_difference
from artifacts.pack.file_names import (
    COMPANION_FILES,
    MANIFEST,
    PROMPTS,
    SCHEDULER_FILES,
    TRANSFORMER_INDEX,
    VAE_FOLDER,
    network_files,
    transformer_files,
)
from schemas.errors import PackError
from schemas.json_io import read_json_file
from schemas.manifest import Manifest

_PROMPT_DTYPES = ("BF16", "F16", "F32")


def read_transformer_headers(
    path: Path, manifest: Manifest, expected: Mapping[str, TensorSpec]
) -> dict[str, Header]:
    """Headers of the transformer's tensor files, by file, each checked.

    Args:
        path: of the pack.
        manifest: of the pack.
        expected: every tensor that the files must hold together.

    Raises:
        PackError: a file is missing or damaged, or holds something else.
    """
    try:
        names = transformer_files(manifest.files)
    except ValueError as cause:
        raise PackError(str(cause)) from None
    headers = {name: read_header(path / name) for name in names}
    places = [(tensor, name) for name, header in headers.items() for tensor in header.tensors]
    file_of = dict(places)
    if len(file_of) != len(places):
        twice = next(tensor for tensor, name in places if file_of[tensor] != name)
        raise PackError(f"tensor {twice} is in more than one shard")
    label = names[0] if len(names) == 1 else "the shards"
    check_difference(file_of, expected, label, MANIFEST, "tensors")
    for tensor, spec in expected.items():
        actual = headers[file_of[tensor]].tensors[tensor].spec
        if actual != spec:
            raise PackError(
                f"{file_of[tensor]}: tensor {tensor} is {actual}, by {MANIFEST} it must be {spec}"
            )
    if len(names) > 1 or TRANSFORMER_INDEX in manifest.files:
        _check_index(path, file_of, sum(spec.nbytes for spec in expected.values()))
    total = sum(manifest.files[name].bytes for name in network_files(manifest.files))
    if manifest.transformer_bytes.pack != total:
        raise PackError(
            f"{MANIFEST}: transformer_bytes.pack is {manifest.transformer_bytes.pack}, the files"
            f" have {total}"
        )
    return headers


def _check_index(path: Path, file_of: Mapping[str, str], total_bytes: int) -> None:
    index = read_json_file(path / TRANSFORMER_INDEX, where=TRANSFORMER_INDEX, error=PackError)
    if index != {"metadata": {"total_size": total_bytes}, "weight_map": dict(file_of)}:
        raise PackError(f"{TRANSFORMER_INDEX}: does not say what the shards hold")


def read_prompt_header(path: Path, manifest: Manifest, architecture: Architecture) -> Header | None:
    """Header of the prompt embeddings, or None where the pack has none.

    Raises:
        PackError: the file is damaged, or does not fit the network.
    """
    if PROMPTS not in manifest.files:
        return None
    header = read_header(path / PROMPTS)
    embeds = header.tensors.get("positive.embeds", TensorSpec("BF16", ()))
    tokens = embeds.shape[0] if embeds.shape else 1
    expected = architecture.prompt_shapes(tokens)
    check_difference(header.tensors, expected, PROMPTS, "the pack format", "tensors")
    for name, shape in expected.items():
        info = header.tensors[name]
        if info.shape != shape or info.dtype not in _PROMPT_DTYPES or tokens < 1:
            raise PackError(
                f"{PROMPTS}: tensor {name} is {info.spec}, but must be floats {list(shape)}"
            )
    for name in expected:
        _check_tensor(header, name, PROMPTS)
    return header


def check_companions(path: Path, manifest: Manifest, architecture: Architecture) -> None:
    """Check the base model's files, which come as a whole or not at all.

    Raises:
        PackError: one is missing or damaged, or the autoencoder does not fit the network.
    """
    present = [name for name in COMPANION_FILES if name in manifest.files]
    if not present:
        return
    if len(present) != len(COMPANION_FILES):
        missing = next(name for name in COMPANION_FILES if name not in present)
        raise PackError(f"{missing} is missing beside {present[0]}")
    for name in SCHEDULER_FILES:
        if not isinstance(read_json_file(path / name, where=name, error=PackError), dict):
            raise PackError(f"{name}: not a JSON object")
    open_autoencoder(
        path / VAE_FOLDER, error=PackError, latent_channels=architecture.latent_size.channels
    ).check_values()


def check_values(headers: Mapping[str, Header], manifest: Manifest) -> None:
    """Float tensors must be finite, those of quantized layers what `LAYER_PARTS` says.

    Holds one tensor at a time.
    """
    for file_name, header in headers.items():
        for name, info in header.tensors.items():
            if info.dtype != "U8":
                _check_tensor(header, name, file_name, allowed_values(name, manifest.layers))


def _check_tensor(header: Header, name: str, file_name: str, allowed: Values = "finite") -> None:
    wrong = wrong_value(header.read(name), allowed)
    if wrong:
        raise PackError(f"{file_name}: tensor {name} has {wrong}")
