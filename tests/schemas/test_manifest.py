import json

import pytest

from schemas.errors import PackError
from schemas.json_io import dump_json, read_json_strict, validate
from schemas.manifest import Manifest
from tests.artifacts.make_pack import make_pack


@pytest.fixture(scope="module")
def manifest_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("manifest") / "a.qpack"
    make_pack(path)
    return (path / "manifest.json").read_bytes()


def parse(data: bytes) -> Manifest:
    content = read_json_strict(data, where="m", error=PackError)
    return validate(Manifest, content, where="manifest.json", error=PackError)


def test_write_read_write_is_byte_identical(manifest_bytes):
    assert dump_json(parse(manifest_bytes)) == manifest_bytes


def test_checksum_is_that_of_the_file_with_an_empty_checksum(manifest_bytes):
    manifest = parse(manifest_bytes)
    assert manifest.checksum == manifest.true_checksum
    changed = manifest.model_copy(update={"omitted": manifest.omitted[1:]})
    assert changed.true_checksum != manifest.checksum
    assert changed.sealed().checksum == changed.true_checksum


def replace(path: str, value):
    def edit(content):
        *parents, last = path.split("/")
        for key in parents:
            content = content[key]
        content[last] = value

    return edit


LAYER = "transformer_blocks.0.attn.to_q"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "zip", "format: "),
        ("format_version", 1.0, "format_version: "),
        ("min_reader_version", True, "min_reader_version: "),
        ("surprise", 1, "surprise: "),
        ("model/family", "Z", r"model\.family: "),
        ("model/variant", "a b", r"model\.variant: "),
        ("sampling/upscale", 2, r"sampling\.upscale: "),
        ("sampling/guidance", float("inf"), r"sampling\.guidance: "),
        ("sampling/overlap_latent", 16, "overlap_latent 16 is not smaller"),
        ("transformer_bytes/source", -1, r"transformer_bytes\.source: "),
        ("rotation/sizes", {}, r"records \[\], but the layers use \['128', '32'\]"),
        ("rotation/enabled", False, "not enabled"),
        (f"layers/{LAYER}/weight_bits", 0, rf"layers\.{LAYER}\.weight_bits"),
        (f"layers/{LAYER}/global_rank", 33, "global_rank 33 exceeds a 32 x 32 weight"),
        (f"layers/{LAYER}/local_block", [3, 8], "local_block 3 x 8 does not divide"),
        (f"layers/{LAYER}/local_block", [8], r"local_block"),
        (f"layers/{LAYER}/rotation", "128", "that of size 128, but in_features is 32"),
        (f"layers/{LAYER}/weight_bits", 16, "kept in 16 bits has neither"),
        ("omitted", ["b", "a"], "omitted: names are not sorted"),
        ("omitted", ["a", "a"], "omitted: names are not sorted, or one appears twice"),
        ("checksum", "0", "checksum"),
        ("files/bit_grid.json/sha256", "0" * 63 + "G", r"files\.bit_grid\.json\.sha256"),
        ("files/bit_grid.json/bytes", "19", r"files\.bit_grid\.json\.bytes"),
    ],
)
def test_a_wrong_field_is_refused_by_name(manifest_bytes, path, value, message):
    content = json.loads(manifest_bytes)
    replace(path, value)(content)
    with pytest.raises(PackError, match=message):
        validate(Manifest, content, where="manifest.json", error=PackError)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a//x", ".", "..", ".x", "a/.x", "", "a\\x", "a\n", "é"]
)
def test_a_file_name_never_leaves_the_directory(manifest_bytes, name):
    content = json.loads(manifest_bytes)
    content["files"][name] = content["files"]["bit_grid.json"]
    with pytest.raises(PackError, match="files"):
        validate(Manifest, content, where="manifest.json", error=PackError)


@pytest.mark.parametrize("name", ["/home/me/a.safetensors", "C:\\a", "a\nb", ""])
def test_a_source_name_says_nothing_about_a_machine(manifest_bytes, name):
    content = json.loads(manifest_bytes)
    content["source"]["files"][0]["name"] = name
    with pytest.raises(PackError, match=r"source\.files\.0\.name"):
        validate(Manifest, content, where="manifest.json", error=PackError)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["quantizer"].update(activation_scale="blend"),
        lambda content: content["quantizer"].update(weight_scale="mse"),
        lambda content: next(iter(content["layers"].values())).update(factor_bits=8),
        lambda content: next(iter(content["layers"].values())).update(token_step=0.5),
    ],
)
def test_what_version_2_brought_is_refused_in_a_pack_of_version_1(manifest_bytes, change):
    content = json.loads(manifest_bytes)
    assert content["min_reader_version"] == 1
    change(content)
    with pytest.raises(PackError, match="needs min_reader_version 2"):
        parse(json.dumps(content).encode())
    content["format_version"] = content["min_reader_version"] = 2
    assert parse(json.dumps(content).encode()).format_version == 2
