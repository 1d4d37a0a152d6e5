"""What a report knows of a pack."""

import json

import pytest

from artifacts.pack.reader import open_pack
from planner.inspect.layer_bytes import other_bytes
from planner.inspect.places import place_of
from planner.report.channel_variances import channel_variances
from planner.report.facts import labels, pack_facts
from tests.artifacts.make_pack import TIMESTEPS, make_pack

KEPT = "transformer_blocks.0.norm1.linear"


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "m.qpack", unquantized=(KEPT,))
    return open_pack(tmp_path / "m.qpack")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.11.attn.to_out.0", (11, "attn.to_out.0")),
        ("proj_out", (None, "proj_out")),
        ("a.b.3.c", (None, "a.b.3.c")),
        ("blocks.3", (None, "blocks.3")),
    ],
)
def test_places(name, place):
    assert place_of(name) == place


def test_facts_are_json_in_network_order(pack):
    facts = pack_facts(pack, "m")
    json.dumps(facts, allow_nan=False)
    names = [layer["name"] for layer in facts["layers"]]
    assert set(names) == set(pack.manifest.layers)
    assert names == [n for n in pack.architecture.quantizable if n in pack.manifest.layers]
    first = facts["layers"][0]
    assert (first["block"], first["kind"]) == (0, "norm1.linear")
    assert first["activation_bits"] == [16] * len(TIMESTEPS)
    assert first["variances"] is None
    assert first["inputs"] is None


def test_every_byte_is_somewhere(pack):
    facts = pack_facts(pack, "m")
    counted = sum(sum(layer["bytes"].values()) for layer in facts["layers"])
    counted += sum(other_bytes(pack).values())
    files = pack.manifest.files
    header = files["transformer.safetensors"].bytes - sum(
        tensor.nbytes for h in pack.headers.values() for tensor in h.tensors.values()
    )
    assert counted + header == sum(file.bytes for file in files.values())


def test_variances_are_those_of_the_decoded_rows(pack):
    names = list(pack.manifest.layers)
    found = channel_variances(pack, names)
    assert list(found) == names
    for name in (KEPT, pack.layer_names[3]):
        weight = (
            pack.tensor(f"{name}.weight").double()
            if name == KEPT
            else pack.layer(name).decode_rotated()
        )
        rows = weight.var(dim=1, unbiased=False)
        assert found[name][0] == pytest.approx(float(rows.min()), rel=1e-4)
        assert found[name][2] == pytest.approx(float(rows.quantile(0.5)), rel=1e-4)
        assert found[name][4] == pytest.approx(float(rows.max()), rel=1e-4)


def test_packs_of_one_name_are_told_apart(tmp_path):
    packs = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_pack(tmp_path / folder / "m.qpack")
        packs.append(open_pack(tmp_path / folder / "m.qpack"))
    assert labels(packs[:1]) == ["m.qpack"]
    assert labels(packs) == [str(pack.path) for pack in packs]
    assert len(set(labels([packs[0], packs[0]]))) == 2
