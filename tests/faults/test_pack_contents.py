"""Packs that contradict themselves: each gets a PackError that names the place.

The numbers are the rows of the project's table of faults.
"""

import json
import shutil
import struct

import pytest

from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from schemas.manifest import FORMAT_VERSION
from tests.artifacts.make_pack import make_pack
from tests.artifacts.tamper import edit_grid, edit_header, edit_manifest, reseal
from tests.faults.pack_setup import LAYER, TENSORS, drop_tensor, files, set_entry, write_values

# --- 23: newer versions


@pytest.mark.parametrize("key", ["format_version", "min_reader_version"])
def test_23_newer_versions_get_a_hint(pack, key):
    edit_manifest(pack, lambda m: m.update({key: FORMAT_VERSION + 1, "a key of the future": []}))
    match = rf"{key} is {FORMAT_VERSION + 1}, this program reads up to {FORMAT_VERSION}"
    with pytest.raises(PackError, match=match) as caught:
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
        if name == "README.md":
            continue
        copy = shutil.copytree(pristine, tmp_path / str(number))
        (copy / name).unlink()
        with pytest.raises(PackError, match=name):
            open_pack(copy)
        if name in ("manifest.json", "prompts.safetensors"):
            continue  # prompts may be left out of a pack as a whole
        reseal(copy)
        with pytest.raises(PackError, match=rf"{name} is missing"):
            open_pack(copy)


def test_25_an_unknown_file_in_the_manifest(pack):
    (pack / "notes.txt").write_text("x")
    reseal(pack)
    with pytest.raises(PackError, match=r"notes\.txt: not a file of a pack"):
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
