"""Tables of modulations that are damaged, missing, or not of their pack."""

import shutil

import pytest
import torch

from artifacts.files.safetensors_io import Entry, read_header, write_safetensors
from artifacts.pack.file_names import MODULATION, PROMPTS
from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from tests.artifacts.make_pack import make_pack
from tests.artifacts.tamper import edit_manifest, reseal
from tests.planner.run_qplan import assert_fails, run_qplan

LAYER = "transformer_blocks.0.norm1.linear"


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    for kind in ("table", "both"):
        make_pack(folder / kind, modulation=kind)
    return folder


@pytest.fixture(params=["table", "both"])
def pack(request, packs, tmp_path):
    return shutil.copytree(packs / request.param, tmp_path / "p.qpack")


def rewrite(file, change):
    """Write a safetensors file again with other tensors."""
    header = read_header(file)
    tensors = {name: header.read(name) for name in header.tensors}
    change(tensors)
    file.unlink()
    write_safetensors(file, {n: Entry.of(t) for n, t in tensors.items()}, {"format": "pt"})


def refused(pack, match):
    with pytest.raises(PackError, match=match):
        open_pack(pack)


def test_it_is_whole_as_it_is(pack):
    verify_pack(pack)


def test_a_changed_value_is_found_by_its_hash(pack):
    place = read_header(pack / MODULATION).tensors[f"{LAYER}.table"].start
    data = bytearray((pack / MODULATION).read_bytes())
    data[place] ^= 1
    (pack / MODULATION).write_bytes(data)
    open_pack(pack)  # the hashes of tensor files are for `qplan verify`
    assert_fails(run_qplan("verify", pack), 3, MODULATION, "SHA-256")


def test_a_missing_file(pack):
    (pack / MODULATION).unlink()
    refused(pack, f"{MODULATION} is missing")
    reseal(pack)
    refused(pack, "in modulation, but not in files")


def test_a_file_that_the_manifest_does_not_know_of(pack):
    edit_manifest(pack, lambda content: content.pop("modulation"))
    refused(pack, "in files, but not in modulation|differ")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(f"{LAYER}.table"), "differ: the network alone has 1"),
        (lambda t: t.update(more=torch.zeros(1).half()), "differ: modulation.safetensors alone"),
        (lambda t: t.update({f"{LAYER}.table": t[f"{LAYER}.table"][:, :-1].clone()}), "must be"),
        (lambda t: t.update({f"{LAYER}.table": t[f"{LAYER}.table"].float()}), "must be F16 or"),
        (lambda t: t[f"{LAYER}.table"].fill_(float("nan")), "not finite"),
    ],
    ids=["a layer missing", "one too many", "a step missing", "float32", "NaN"],
)
def test_another_content(pack, change, match):
    rewrite(pack / MODULATION, change)
    reseal(pack)
    refused(pack, match)


def test_other_prompts_than_those_of_the_rows(pack):
    rewrite(pack / PROMPTS, lambda tensors: tensors["positive.pooled"].add_(1))
    reseal(pack)
    refused(pack, "modulation.prompts are not those of prompts.safetensors")


def test_other_steps_than_those_of_sampling(packs, tmp_path):
    for kind in ("table", "both"):
        pack = shutil.copytree(packs / kind, tmp_path / kind)
        edit_manifest(pack, lambda m: m["sampling"].update(steps=m["sampling"]["steps"] + 1))
    refused(tmp_path / "table", "timesteps and no weights, sampling")
    assert_fails(run_qplan("verify", tmp_path / "table"), 3, "timesteps")
    verify_pack(tmp_path / "both")  # whose layers compute what the table lacks


def test_no_prompts(pack):
    (pack / PROMPTS).unlink()
    reseal(pack)
    refused(pack, "prompts.safetensors is missing")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda m: m.update(format_version=1, min_reader_version=1), "min_reader_version 2"),
        (lambda m: m.update(min_reader_version=1), "min_reader_version 2"),
        (lambda m: m["modulation"].update(weights=not m["modulation"]["weights"]), "differ"),
        (lambda m: m["modulation"].update(prompts=m["modulation"]["prompts"][::-1]), "not those"),
        (lambda m: m["modulation"].update(prompts=[]), "modulation.prompts"),
        (lambda m: m["modulation"].update(timesteps=[5.0, 6.0]), "must descend"),
        (lambda m: m["modulation"].update(timesteps=[1000.0]), "must be|modulation has 1 time"),
        (lambda m: m["modulation"].update(rows=1), "rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_manifest_that_says_something_else(pack, edit, match):
    edit_manifest(pack, edit)
    content = (pack / "manifest.json").read_text()
    assert "modulation" in content
    refused(pack, match)
