"""docs/pack-format.md is enough to read a pack: a reader in numpy, from the page alone.

Our own code makes the packs and says what the weights are; what stands above the tests uses none
of it, nor torch.
"""

import json

import numpy as np
import pytest
import torch

from artifacts.codec.bitpack import pack_codes
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.position_table import sincos_table
from artifacts.pack.reader import open_pack
from tests.artifacts.make_pack import TINY, make_pack

SQUARES = {12: (1, 3, 4, 5, 9), 20: (1, 4, 5, 6, 7, 9, 11, 16, 17)}
PLANES = {3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}


def read_safetensors(path):
    """Name -> array; bfloat16 is the upper half of a float32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        dtype = {"U8": "u1", "F32": "<f4", "BF16": "<u2", "I8": "i1"}[entry["dtype"]]
        values = np.frombuffer(data[start + first : start + end], dtype)
        if entry["dtype"] == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def sylvester(order):
    return np.array([[(-1) ** (i & j).bit_count() for j in range(order)] for i in range(order)])


def paley(order):
    matrix = np.ones((order, order))
    matrix[1:, 0] = -1
    for i in range(order - 1):
        for j in range(order - 1):
            if i != j:
                is_square = (i - j) % (order - 1) in SQUARES[order]
                matrix[1 + i, 1 + j] = 1 if is_square else -1
    return matrix


def rotation(size, construction, block_size):
    if construction == "none":
        return np.eye(size)
    if construction == "block":
        return np.kron(np.eye(size // block_size), sylvester(block_size)) / np.sqrt(block_size)
    if construction == "sylvester":
        return sylvester(size) / np.sqrt(size)
    order = {"paley12": 12, "paley20": 20}[construction]
    return np.kron(paley(order), sylvester(size // order)) / np.sqrt(size)


def unpack(data, bits, rows, columns):
    """Codes [rows, columns] from packed bytes."""
    codes, start = np.zeros((rows, columns), int), 0
    for width in PLANES.get(bits, (bits,)):
        row_bytes = -(-columns * width // 32) * 4
        plane = data[start : start + rows * row_bytes].reshape(rows, row_bytes)
        start += rows * row_bytes
        single = np.unpackbits(plane, axis=1, bitorder="little")[:, : columns * width]
        values = single.reshape(rows, columns, width) @ (1 << np.arange(width))
        codes = codes << width | values
    assert start == len(data)
    return codes


def decode(name, record, sizes, tensors):
    """The weight [out, in] of the layer ``name``."""
    rows, columns, bits = record["out_features"], record["in_features"], record["weight_bits"]
    codes = unpack(tensors[f"{name}.codes"], bits, rows, columns)
    weight = (codes - (2**bits - 1) / 2) * tensors[f"{name}.scale"][:, None].astype(float)
    if record["global_rank"]:
        down = tensors[f"{name}.global_down"].astype(float)
        if record.get("factor_bits", 16) == 8:
            down *= tensors[f"{name}.global_scale"][:, None]
        weight += tensors[f"{name}.global_up"].astype(float) @ down
    if record["local_block"]:
        height, width = record["local_block"]
        up, down = (tensors[f"{name}.local_{part}"].astype(float) for part in ("up", "down"))
        if record.get("factor_bits", 16) == 8:
            up *= tensors[f"{name}.local_scale"][:, :, None]
        for p in range(rows // height):
            for q in range(columns // width):
                block = np.s_[p * height : (p + 1) * height, q * width : (q + 1) * width]
                weight[block] += np.outer(up[p, q], down[p, q])
    if record["rotation"] != "none":
        weight = weight @ rotation(columns, **sizes[record["rotation"]]).T
        signs = tensors.get(f"rotation.signs.{columns}")
        if signs is not None:
            weight *= 1 - 2.0 * np.unpackbits(signs, bitorder="little")[:columns]
    if record["smoothing"]:
        weight /= tensors[f"{name}.smoothing"]
    return weight


def position_table(config):
    """The table [side * side, C] of sines and cosines."""
    side, channels = config["pos_embed_max_size"], config["caption_projection_dim"]
    p = np.arange(side) * (config["sample_size"] // config["patch_size"]) / side
    angles = np.outer(p, 10000.0 ** (-np.arange(channels // 4) / (channels // 4)))
    axis = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    tokens = [
        np.concatenate([axis[column], axis[row]]) for row in range(side) for column in range(side)
    ]
    return np.stack(tokens)  # fmt: skip


def of_width(heads, head_size):
    return TransformerConfig(
        **TINY.model_dump()
        | {
            "num_attention_heads": heads,
            "attention_head_dim": head_size,
            "caption_projection_dim": heads * head_size,
        }
    )


CONSTRUCTIONS = {
    (2, 16): {"32": "sylvester", "128": "sylvester"},
    (2, 12): {"24": "paley12", "96": "paley12"},
    (2, 20): {"40": "paley20", "160": "paley20"},
    (2, 56): {"112": "block", "448": "block"},
    (2, 14): {"112": "block"},  # and none for 28
}


@pytest.mark.parametrize(("signs", "factor_bits"), [(True, 16), (False, 16), (True, 8)])
@pytest.mark.parametrize("heads", CONSTRUCTIONS)
def test_every_weight_decodes_from_the_page(tmp_path, heads, signs, factor_bits):
    make_pack(tmp_path / "a.qpack", config=of_width(*heads), signs=signs, factor_bits=factor_bits)
    manifest = json.loads((tmp_path / "a.qpack/manifest.json").read_text())
    tensors = read_safetensors(tmp_path / "a.qpack/transformer.safetensors")
    sizes = manifest["rotation"]["sizes"]
    assert {key: size["construction"] for key, size in sizes.items()} == CONSTRUCTIONS[heads]
    ours = open_pack(tmp_path / "a.qpack")
    for name, record in manifest["layers"].items():
        expected = ours.layer(name).decode(torch.float64).numpy()
        found = decode(name, record, sizes, tensors)
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 1e-12, name


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 5, 32, 33, 70])
def test_codes_of_all_widths_unpack_from_the_page(bits, columns):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(2**bits, (3, columns), generator=generator, dtype=torch.uint8)
    packed = pack_codes(codes, bits).numpy()
    np.testing.assert_array_equal(unpack(packed, bits, 3, columns), codes.numpy())


def test_the_pages_own_example_unpacks():
    data = np.array([0b00_11_01_10, 0, 0, 0, 0b00000_1_0_1, 0, 0, 0], np.uint8)
    assert unpack(data, 3, 1, 3).tolist() == [[5, 2, 7]]


def test_position_table_is_rebuilt_from_the_page():
    found = position_table(TINY.model_dump())
    np.testing.assert_allclose(found, sincos_table(TINY)[0], atol=1e-6)
