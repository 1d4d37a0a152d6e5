"""Damaged and hostile bytes of packs: each gets a PackError that names the place.

The numbers are the rows of the project's table of faults.
"""

import random
import shutil
import struct

import pytest
import torch

from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from tests.artifacts.tamper import edit_header, edit_manifest, reseal
from tests.faults.pack_setup import LAYER, TENSORS, files, set_entry


def test_exit_code_is_three():
    assert PackError.exit_code == 3


# --- 20: one flipped bit anywhere


@pytest.mark.parametrize("seed", range(6))
def test_20_one_flipped_bit_names_its_file(pack, seed):
    randomness = random.Random(seed)
    for name in files(pack):
        if name == "README.md":
            continue  # anyone may edit the model card
        path = pack / name
        data = bytearray(path.read_bytes())
        place = randomness.randrange(len(data))
        if name == "manifest.json":
            while data[place] in b" \n":  # between values, another blank changes nothing
                place = randomness.randrange(len(data))
        data[place] ^= 1 << randomness.randrange(8)
        original = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(PackError, match=name):
            verify_pack(pack)
        path.write_bytes(original)
    verify_pack(pack)


# --- 21: hostile headers


@pytest.mark.parametrize("name", [TENSORS, "prompts.safetensors"])
def test_21_header_length_beyond_everything(pack, name):
    with (pack / name).open("r+b") as file:
        file.write(struct.pack("<Q", 2**63))
    reseal(pack)
    with pytest.raises(PackError, match=rf"{name}: header length {2**63}"):
        open_pack(pack)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [0, 2**40]}, "takes 0 bytes, but its offsets span 128"),
        ({"shape": [2**40, 2**40]}, "takes .* bytes, but its offsets span"),
        ({"shape": [2**63]}, "below 2\\^63"),
        ({"data_offsets": [0, 128]}, "overlaps|gap"),
        ({"data_offsets": [2**62, 2**62 + 128]}, "gap"),
        ({"data_offsets": [2**64 - 128, 2**64]}, "below 2\\^63"),
        ({"dtype": "I32"}, rf"{TENSORS}: tensor {LAYER}.scale is I32 \[32\], by manifest.json"),
        ({"shape": [4, 8]}, rf"{TENSORS}: tensor {LAYER}.scale is F32 \[4, 8\]"),
    ],
)
def test_21_hostile_entries(pack, changes, message):
    edit_header(pack / TENSORS, set_entry(f"{LAYER}.scale", **changes))
    reseal(pack)
    with pytest.raises(PackError, match=message):
        open_pack(pack)


def test_21_a_manifest_of_huge_shapes_allocates_nothing(pack):
    edit_manifest(
        pack,
        lambda m: m["model"]["config"].update(
            num_attention_heads=1024, caption_projection_dim=16384, joint_attention_dim=65536
        ),
    )
    with pytest.raises(PackError, match=r"manifest.json has a 32 x 32|32 .* weight"):
        open_pack(pack)


# --- 22: hostile JSON


@pytest.mark.parametrize("name", ["manifest.json", "bit_grid.json"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"format_version": 1', b'"format_version": 1, "format_version": 1', "appears twice"),
        (b'"format_version": 1', b'"format_version": NaN', "NaN"),
        (b'"format_version": 1', b'"format_version": "1"', "format_version: .*valid integer"),
        (b'"format_version": 1', b'"format_version": 1.0', "format_version: .*valid integer"),
        (b'"weight_bits": 4', b'"weight_bits": "4"', r"weight_bits.*valid integer"),
        (b'"weight_bits": 4', b'"weight_bits": 1e999', "out of range"),
        (b'"format_version": 1', b'"x": ' + b"[" * 10**4 + b"]" * 10**4, "nest deeper"),
        (b'"format_version": 1', b'"x": "\xff"', "UTF-8"),
    ],
)
def test_22_hostile_json(pack, name, old, new, message):
    path = pack / name
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    if name != "manifest.json":
        reseal(pack)
    with pytest.raises(PackError, match=message) as caught:
        open_pack(pack)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["manifest.json", "bit_grid.json", "vae/config.json"])
def test_22_a_gigabyte_of_json_is_not_read(pack, name):
    with (pack / name).open("wb") as file:
        file.truncate(2**30)  # sparse
    if name != "manifest.json":
        edit_manifest(pack, lambda m: m["files"][name].update(bytes=2**30))
    with pytest.raises(PackError, match=rf"{name}: {2**30} bytes of JSON, more than"):
        open_pack(pack)


@pytest.mark.parametrize("content", [b"[]", b"4", b"null", b"", b'{"format": "zip"}'])
def test_22_not_a_manifest(pack, content):
    (pack / "manifest.json").write_bytes(content)
    with pytest.raises(PackError, match=r"manifest\.json"):
        open_pack(pack)


# --- fuzz


def mutate(data: bytes, other: bytes, randomness: random.Random) -> bytes:
    """Flip, truncate, splice or repeat, at a random place."""
    place = randomness.randrange(len(data))
    length = randomness.choice([1, 2, 8, 100, 5000])
    kind = randomness.choice(["flip", "byte", "truncate", "splice", "repeat", "remove"])
    if kind == "flip":
        flipped = data[place] ^ 1 << randomness.randrange(8)
        return data[:place] + bytes([flipped]) + data[place + 1 :]
    if kind == "byte":
        return data[:place] + randomness.choice([b"9", b"-", b'"', b"}"]) + data[place + 1 :]
    if kind == "truncate":
        return data[:place]
    if kind == "splice":
        start = randomness.randrange(len(other))
        return data[:place] + other[start : start + length] + data[place + length :]
    if kind == "repeat":
        return data[: place + length] + data[place:]
    return data[:place] + data[place + length :]


def read_everything(pack):
    """Every number of a pack, by name; shapes and dtypes included."""
    values = {name: pack.layer(name).decode(torch.float32) for name in pack.layer_names}
    values |= {name: pack.tensor(name) for name in pack.tensor_names}
    return values | (pack.prompts() or {})


@pytest.mark.parametrize("batch", range(10))
def test_fuzz_mutated_packs(pristine, pack, batch):
    original = read_everything(open_pack(pristine))
    names = files(pristine)
    survived = 0
    for case in range(30):
        randomness = random.Random(1000 * batch + case)
        name, other = randomness.choice(names), randomness.choice(names)
        data = mutate((pristine / name).read_bytes(), (pristine / other).read_bytes(), randomness)
        (pack / name).write_bytes(data)
        try:
            equal = open_pack(pack, verify_hashes=True)
        except PackError:
            pass
        else:
            # Only blanks of the manifest may differ and pass.
            assert equal.manifest == open_pack(pristine).manifest, (batch, case)
        # Once more with a manifest that vouches for the damage: whatever opens must be readable.
        if name != "manifest.json":
            reseal(pack)
        try:
            read = read_everything(open_pack(pack))
        except PackError:
            pass
        else:
            survived += 1
            assert {n: (t.shape, t.dtype) for n, t in read.items()} == {
                n: (t.shape, t.dtype) for n, t in original.items()
            } or name == "prompts.safetensors", (batch, case)
        for changed in {name, "manifest.json"}:
            shutil.copyfile(pristine / changed, pack / changed)
    assert survived, "no mutation reached the reading of tensors: the fuzz checks too little"
