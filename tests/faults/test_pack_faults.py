"""Damaged, hostile and inconsistent packs: each gets a PackError that names the place.

The numbers are the rows of the project's table of faults.
"""

import json
import os
import random
import shutil
import struct

import pytest
import torch

from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from tests.artifacts.make_pack import make_pack
from tests.artifacts.tamper import edit_grid, edit_header, edit_manifest, reseal

LAYER = "transformer_blocks.0.attn.to_out.0"  # has both kinds of factors
TENSORS = "transformer.safetensors"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "a.qpack"
    make_pack(path)
    return path


@pytest.fixture
def pack(pristine, tmp_path):
    """A copy to damage."""
    return shutil.copytree(pristine, tmp_path / "a.qpack")


@pytest.fixture
def shards(tmp_path):
    path = tmp_path / "shards.qpack"
    make_pack(path, shard_bytes=60_000)
    return path


def files(pack):
    return sorted(p.relative_to(pack).as_posix() for p in pack.rglob("*") if p.is_file())


def write_values(pack, name, values, place=0):
    """Overwrite values of a tensor in the transformer's file, from one position on."""
    info = open_pack(pack).headers[TENSORS].tensors[name]
    with (pack / TENSORS).open("r+b") as file:
        file.seek(info.start + place)
        file.write(values)


def test_exit_code_is_three():
    assert PackError.exit_code == 3


# --- 20: one flipped bit anywhere


@pytest.mark.parametrize("seed", range(6))
def test_20_one_flipped_bit_names_its_file(pack, seed):
    randomness = random.Random(seed)
    for name in files(pack):
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


def set_entry(tensor, **changes):
    def edit(header):
        header[tensor].update(changes)

    return edit


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


# --- 23: newer versions


@pytest.mark.parametrize("key", ["format_version", "min_reader_version"])
def test_23_newer_versions_get_a_hint(pack, key):
    edit_manifest(pack, lambda m: m.update({key: 2, "a key of the future": []}))
    with pytest.raises(PackError, match=rf"{key} is 2, this program reads up to 1") as caught:
        open_pack(pack)
    assert "upgrade" in caught.value.hint


# --- 24: grid, manifest and network disagree


def test_24_layer_missing_from_the_grid(pack):
    edit_grid(pack, lambda g: g["layers"].pop(LAYER))
    with pytest.raises(PackError, match=rf"bit_grid.json and manifest.json .*{LAYER}"):
        open_pack(pack)


def test_24_unknown_layer_in_the_grid(pack):
    edit_grid(pack, lambda g: g["layers"].update({f"{LAYER}x": g["layers"][LAYER]}))
    with pytest.raises(PackError, match=rf"bit_grid.json alone has 1: {LAYER}x"):
        open_pack(pack)


def test_24_unknown_layer_in_both(pack):
    edit_grid(pack, lambda g: g["layers"].update({"ghost": g["layers"][LAYER]}))
    edit_manifest(pack, lambda m: m["layers"].update({"ghost": m["layers"][LAYER]}))
    with pytest.raises(PackError, match=r"manifest.json and the network differ.*ghost"):
        open_pack(pack)


def test_24_layer_missing_from_both(pack):
    edit_grid(pack, lambda g: g["layers"].pop(LAYER))
    edit_manifest(pack, lambda m: m["layers"].pop(LAYER))
    with pytest.raises(PackError, match=rf"the network alone has 1: {LAYER}"):
        open_pack(pack)


@pytest.mark.parametrize("bits", [0, 99, 9, -4, 16.0, True, None])
@pytest.mark.parametrize("key", ["weight_bits", "activation_bits"])
def test_24_bits_out_of_range(pack, key, bits):
    value = [4, bits, 4] if key == "activation_bits" else bits
    edit_grid(pack, lambda g: g["layers"][LAYER].update({key: value}))
    with pytest.raises(PackError, match=rf"bit_grid.json: layers.{LAYER}.{key}"):
        open_pack(pack)


@pytest.mark.parametrize("bits", [0, 99])
def test_24_bits_out_of_range_in_the_manifest(pack, bits):
    edit_manifest(pack, lambda m: m["layers"][LAYER].update(weight_bits=bits))
    with pytest.raises(PackError, match=rf"manifest.json: layers.{LAYER}.weight_bits"):
        open_pack(pack)


def test_24_other_bits_in_grid_and_manifest(pack):
    edit_grid(pack, lambda g: g["layers"][LAYER].update(weight_bits=7))
    with pytest.raises(PackError, match=r"bit_grid.json has 7 weight bits, manifest.json has \d"):
        open_pack(pack)


def test_24_other_bits_than_the_codes_have(pack):
    edit_grid(pack, lambda g: g["layers"][LAYER].update(weight_bits=7))
    edit_manifest(pack, lambda m: m["layers"][LAYER].update(weight_bits=7))
    with pytest.raises(PackError, match=rf"tensor {LAYER}.codes is U8 .* by manifest.json"):
        open_pack(pack)


@pytest.mark.parametrize("steps", [[5, 4], [5, 4, 4, 4], []])
def test_24_activation_bits_for_other_steps(pack, steps):
    edit_grid(pack, lambda g: g["layers"][LAYER].update(activation_bits=steps))
    with pytest.raises(PackError, match=rf"layer {LAYER} has {len(steps)} .* for 3 timesteps"):
        open_pack(pack)


def test_24_a_timestep_more_than_columns(pack):
    edit_grid(pack, lambda g: g["timesteps"].append(1.0))
    with pytest.raises(PackError, match="3 activation bits for 4 timesteps"):
        open_pack(pack)


def test_24_sixteen_bit_weight_with_quantized_activations(tmp_path):
    make_pack(tmp_path / "a.qpack", unquantized=(LAYER,))
    edit_grid(tmp_path / "a.qpack", lambda g: g["layers"][LAYER].update(activation_bits=[16, 4, 8]))
    with pytest.raises(PackError, match=rf"layer {LAYER}: bit_grid.json .* manifest.json keeps"):
        open_pack(tmp_path / "a.qpack")


def test_24_another_target(pack):
    edit_grid(pack, lambda g: g["target"].update(weight_bits=3))
    with pytest.raises(PackError, match=r"target: bit_grid.json has 3/4.5 bits, manifest.json 4/"):
        open_pack(pack)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["layers"][LAYER].update(in_features=64, rotation="none"), "32 x 64"),
        (lambda m: m["layers"][LAYER].update(global_rank=3), f"tensor {LAYER}.global"),
        (lambda m: m["layers"][LAYER].update(local_block=[8, 8]), f"tensor {LAYER}.local"),
        (lambda m: m["rotation"]["sizes"]["32"].update(block_size=16), "rotation.sizes.32"),
        (lambda m: m["rotation"]["sizes"]["32"].update(construction="paley12"), "no paley12"),
        (
            lambda m: m["rotation"]["sizes"]["32"].update(construction="none", block_size=1),
            "layers without a rotation",
        ),
        (lambda m: m["rotation"].update(signs=False), "rotation.signs.128"),
        (lambda m: m["model"].update(variant="r1"), "omits .*to_k_control"),
        (lambda m: m["model"]["config"].update(dual_attention_layers=[0, 1]), "differ"),
        (lambda m: m.update(omitted=[*m["omitted"], "zzz"]), "omits zzz"),
        (lambda m: m.update(omitted=sorted([*m["omitted"], "proj_out.bias"])), "omits proj_out"),
        (lambda m: m.update(rebuilt=[]), "pos_embed.pos_embed"),
        (lambda m: m["transformer_bytes"].update(pack=5), "transformer_bytes.pack is 5"),
    ],
)
def test_24_manifest_and_tensors_disagree(pack, edit, message):
    edit_manifest(pack, edit)
    with pytest.raises(PackError, match=message):
        open_pack(pack)


# --- 25: files and tensors missing or left over


def drop_tensor(path, name):
    """Remove a tensor and its bytes, leaving a well-formed file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    low, high = header.pop(name)["data_offsets"]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] >= high:
            entry["data_offsets"] = [place - (high - low) for place in entry["data_offsets"]]
    text = json.dumps(header).encode()
    body = data[start : start + low] + data[start + high :]
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.mark.parametrize(
    "name", [f"{LAYER}.codes", f"{LAYER}.bias", "proj_out.weight", "rotation.signs.32"]
)
def test_25_missing_tensor(pack, name):
    drop_tensor(pack / TENSORS, name)
    reseal(pack)
    with pytest.raises(
        PackError, match=rf"tensors of {TENSORS} .*manifest.json alone has 1: {name}"
    ):
        open_pack(pack)


@pytest.mark.parametrize("name", ["extra", f"{LAYER}.weight", "pos_embed.pos_embed"])
def test_25_extra_tensor(pack, name):
    def edit(header):
        end = max(entry["data_offsets"][1] for key, entry in header.items() if key[0] != "_")
        header[name] = {"dtype": "U8", "shape": [0], "data_offsets": [end, end]}

    edit_header(pack / TENSORS, edit)
    reseal(pack)
    with pytest.raises(PackError, match=rf"{TENSORS} alone has 1: {name}"):
        open_pack(pack)


def test_25_missing_prompt_tensor(pack):
    drop_tensor(pack / "prompts.safetensors", "negative.pooled")
    reseal(pack)
    with pytest.raises(PackError, match=r"prompts.safetensors .*negative\.pooled"):
        open_pack(pack)


@pytest.mark.parametrize(
    ("tensor", "shape"), [("negative.embeds", [4, 30]), ("positive.pooled", [1, 20])]
)
def test_25_prompts_of_another_shape(pack, tensor, shape):
    edit_header(pack / "prompts.safetensors", set_entry(tensor, shape=shape))
    reseal(pack)
    with pytest.raises(PackError, match=rf"prompts.safetensors: tensor {tensor} is BF16"):
        open_pack(pack)


def test_25_missing_file(pristine, tmp_path):
    for number, name in enumerate(files(pristine)):
        copy = shutil.copytree(pristine, tmp_path / str(number))
        (copy / name).unlink()
        with pytest.raises(PackError, match=name):
            open_pack(copy)
        if name in ("manifest.json", "prompts.safetensors"):
            continue  # prompts may be left out of a pack as a whole
        reseal(copy)
        with pytest.raises(PackError, match=rf"{name} is missing"):
            open_pack(copy)


def test_25_extra_file(pack):
    (pack / "notes.txt").write_text("x")
    with pytest.raises(PackError, match=r"the directory alone has 1: notes\.txt"):
        open_pack(pack)
    reseal(pack)
    with pytest.raises(PackError, match=r"notes\.txt: not a file of a pack"):
        open_pack(pack)


def test_25_extra_folder(pack):
    (pack / "more").mkdir()
    with pytest.raises(PackError, match="more: neither a file nor a directory of a pack"):
        open_pack(pack)


def test_25_missing_and_extra_shards(shards):
    names = sorted(path.name for path in shards.glob("transformer-*"))
    assert len(names) > 1
    verify_pack(shards)
    data = (shards / names[1]).read_bytes()
    (shards / names[1]).unlink()
    reseal(shards)
    with pytest.raises(PackError, match=f"shards of {len(names)} expected"):
        open_pack(shards)
    (shards / names[1]).write_bytes(data)
    (shards / "transformer-00009-of-00009.safetensors").write_bytes(data)
    reseal(shards)
    with pytest.raises(PackError, match="shards of"):
        open_pack(shards)
    (shards / "transformer-00009-of-00009.safetensors").rename(shards / TENSORS)
    reseal(shards)
    with pytest.raises(PackError, match="stands beside shards"):
        open_pack(shards)


def test_25_a_tensor_in_two_shards(shards):
    names = sorted(path.name for path in shards.glob("transformer-*"))
    (shards / names[1]).write_bytes((shards / names[0]).read_bytes())
    reseal(shards)
    with pytest.raises(PackError, match="in more than one shard"):
        open_pack(shards)


@pytest.mark.parametrize("damage", ["total", "map", "gone"])
def test_25_shard_index(shards, damage):
    path = shards / "transformer.safetensors.index.json"
    index = json.loads(path.read_text())
    if damage == "total":
        index["metadata"]["total_size"] += 1
    else:
        index["weight_map"][f"{LAYER}.codes"] = "../../etc/passwd"
    path.write_text(json.dumps(index))
    if damage == "gone":
        path.unlink()
    reseal(shards)
    with pytest.raises(PackError, match=r"transformer\.safetensors\.index\.json"):
        open_pack(shards)


# --- 26: values


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 31])
def test_26_scales(pack, value, row):
    write_values(pack, f"{LAYER}.scale", struct.pack("<f", value), 4 * row)
    reseal(pack)
    with pytest.raises(PackError, match=rf"{TENSORS}: tensor {LAYER}\.scale has a (neg|value)"):
        open_pack(pack)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_26_smoothing(pack, value):
    layers = open_pack(pack).manifest.layers
    name = next(name for name, record in layers.items() if record.smoothing)
    write_values(pack, f"{name}.smoothing", struct.pack("<f", value), 8)
    reseal(pack)
    with pytest.raises(PackError, match=rf"{TENSORS}: tensor {name}\.smoothing has a value"):
        open_pack(pack)


@pytest.mark.parametrize("name", [f"{LAYER}.bias", "proj_out.weight", f"{LAYER}.global_up"])
@pytest.mark.parametrize("pattern", [0x7F80, 0xFF80, 0x7FC0])
def test_26_other_values_in_bfloat16(pack, name, pattern):
    write_values(pack, name, struct.pack("<H", pattern), 6)
    reseal(pack)
    with pytest.raises(PackError, match=rf"{TENSORS}: tensor {name} has a value that is not"):
        open_pack(pack)


def test_26_prompt_values(pack):
    path = pack / "prompts.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"\x80\x7f")
    reseal(pack)
    with pytest.raises(PackError, match=r"prompts.safetensors: tensor .* not finite"):
        open_pack(pack)


# --- 27: replaced while open


@pytest.mark.parametrize("change", ["rename", "truncate", "overwrite", "remove", "whole pack"])
def test_27_replaced_while_open(pristine, tmp_path, change):
    path = shutil.copytree(pristine, tmp_path / "a.qpack")
    opened = open_pack(path)
    before = opened.layer(LAYER)
    kept = before.codes.clone()
    tensors = path / TENSORS
    if change == "rename":
        shutil.copyfile(tensors, tmp_path / "other")
        (tmp_path / "other").replace(tensors)
    elif change == "truncate":
        os.truncate(tensors, 1000)
    elif change == "overwrite":
        size = tensors.stat().st_size
        with tensors.open("r+b") as file:
            file.write(b"\xff" * size)
        stamp = tensors.stat().st_mtime_ns + 10_000_000  # clocks of file systems tick slowly
        os.utime(tensors, ns=(stamp, stamp))
    elif change == "remove":
        shutil.rmtree(path)
    else:
        make_pack(path, force=True, seed=9)
    for read in (lambda: opened.layer(LAYER), lambda: opened.tensor("proj_out.weight")):
        with pytest.raises(PackError, match=rf"{TENSORS}: (was replaced|cannot be read)"):
            read()
    assert torch.equal(before.codes, kept)  # what was read before is no window into the file
    assert before.decode().isfinite().all()


# --- names never leave the directory


@pytest.mark.parametrize("name", ["README.md", TENSORS, "vae/config.json", "manifest.json"])
def test_links_that_point_out(pack, tmp_path, name):
    outside = tmp_path / "outside"
    (pack / name).rename(outside)
    (pack / name).symlink_to(outside)
    with pytest.raises(PackError, match=f"{name}: a link that points out") as caught:
        open_pack(pack)
    assert "cp -rL" in caught.value.hint


@pytest.mark.parametrize("target", ["loop", "/dev/zero", "/etc/passwd", "gone", "vae"])
def test_odd_links(pack, target):
    (pack / "README.md").unlink()
    (pack / "README.md").symlink_to("README.md" if target == "loop" else target)
    with pytest.raises(PackError, match=r"README\.md"):
        open_pack(pack)


def test_a_linked_folder(pack, tmp_path):
    (pack / "vae").rename(tmp_path / "vae")
    (pack / "vae").symlink_to(tmp_path / "vae")
    with pytest.raises(PackError, match="vae: a link that points out"):
        open_pack(pack)


def test_a_link_within_the_pack_is_read(pack):
    (pack / "README.md").unlink()
    (pack / "README.md").symlink_to("vae/config.json")
    reseal(pack)
    verify_pack(pack)


def test_a_pipe_does_not_block(pack):
    (pack / "README.md").unlink()
    os.mkfifo(pack / "README.md")
    with pytest.raises(PackError, match=r"README\.md: neither a file"):
        open_pack(pack)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "vae/../README.md", "./README.md"])
def test_names_in_the_manifest_that_point_out(pack, name):
    edit_manifest(pack, lambda m: m["files"].update({name: m["files"]["README.md"]}))
    with pytest.raises(PackError, match=r"manifest\.json: files"):
        open_pack(pack)


def test_no_pack_at_all(tmp_path):
    with pytest.raises(PackError, match="does not exist"):
        open_pack(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackError, match="is not a directory"):
        open_pack(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackError, match=r"manifest\.json: cannot be read"):
        open_pack(tmp_path / "empty")


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
