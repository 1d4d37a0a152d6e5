"""Open a pack: everything it says is checked before anything is allocated.

Checks run from cheap to dear: manifest, sizes, hashes (of tensor files when asked for), grid,
tensor headers, and the values that could poison a whole image (scales, factors, biases).
"""

from pathlib import Path

import torch

from artifacts.codec.bitpack import pack_codes
from artifacts.pack.contents import (
    architecture_of,
    check_agreement,
    pack_rotations,
    pack_tensors,
)
from artifacts.pack.directory import check_files, read_manifest
from artifacts.pack.file_names import BIT_GRID
from artifacts.pack.headers import (
    check_companions,
    check_values,
    read_prompt_header,
    read_transformer_headers,
)
from artifacts.pack.modulation import read_table_header
from artifacts.pack.opened import Pack
from schemas.bit_grid import BitGrid, LayerBits
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import PackError
from schemas.json_io import read_json_file, validate
from schemas.manifest import Manifest

__all__ = ["Pack", "open_pack", "verify_pack"]


def open_pack(path: Path, *, verify_hashes: bool = False, own_grid: bool = True) -> Pack:
    """Open a pack and check all of it but, by default, the hashes of its tensor files.

    Args:
        path: the directory.
        verify_hashes: read every file in full and compare its SHA-256 with the manifest's.
        own_grid: False leaves ``bit_grid.json`` unread, whatever it is: for whoever brings another.
            The pack then has a grid of one timestep with unquantized activations.

    Raises:
        PackError: the pack is damaged, inconsistent, or of a newer version; the message names the
            file, layer or tensor.
    """
    manifest = read_manifest(path)
    check_files(path, manifest, hashes=verify_hashes, without=() if own_grid else (BIT_GRID,))
    architecture = architecture_of(manifest)
    grid = _read_grid(path) if own_grid else _unquantized_grid(manifest)
    check_agreement(manifest, architecture, grid)
    rotations = pack_rotations(manifest)
    headers = read_transformer_headers(path, manifest, pack_tensors(manifest, architecture))
    prompt_header = read_prompt_header(path, manifest, architecture)
    check_companions(path, manifest, architecture)
    check_values(headers, manifest)
    table = read_table_header(path, manifest, architecture, prompt_header)
    pack = Pack(path, manifest, grid, architecture, rotations, headers, prompt_header, table)
    for size in rotations:
        pack.signs(int(size))
    return pack


def _read_grid(path: Path) -> BitGrid:
    content = read_json_file(path / BIT_GRID, where=BIT_GRID, error=PackError)
    return validate(BitGrid, content, where=BIT_GRID, error=PackError)


def _unquantized_grid(manifest: Manifest) -> BitGrid:
    """Weight bits as the manifest says; activations in 16 bits."""
    layers = {
        name: LayerBits(weight_bits=record.weight_bits, activation_bits=(UNQUANTIZED,))
        for name, record in manifest.layers.items()
    }
    return BitGrid(target=manifest.target, timesteps=(0.0,), layers=layers)


def verify_pack(path: Path) -> Pack:
    """Open a pack with all hashes, then decode the codes of every layer.

    Raises:
        PackError: as `open_pack`, or a layer's padding is not zero.
    """
    pack = open_pack(path, verify_hashes=True)
    for name in pack.layer_names:
        layer = pack.layer(name)
        if not torch.equal(pack_codes(layer.unpacked_codes(), layer.weight_bits), layer.codes):
            raise PackError(f"layer {name}: bits are set in the padding of its codes")
    return pack
