import os
import shutil

import pytest
import torch

from artifacts.dit4sr.layout import POSITION_TABLE, block_linears, tensor_shapes, unread_tensors
from artifacts.files.hashing import sha256_of
from artifacts.pack.directory import other_files
from artifacts.pack.reader import open_pack, verify_pack
from artifacts.pack.writer import PackWriter
from schemas.errors import PackError
from tests.artifacts.make_pack import PROMPT_TOKENS, TINY, make_pack, random_weight
from tests.artifacts.tamper import edit_manifest, reseal


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "a.qpack"
    make_pack(path)
    return path


def test_layers_come_back_as_they_were_made(path):
    pack = open_pack(path)
    names = list(block_linears(TINY))
    assert pack.layer_names == [n for n in names if f"{n}.weight" not in pack.manifest.omitted]
    name = "transformer_blocks.0.attn.to_q"
    index = names.index(name)
    record = pack.manifest.layers[name]
    made = random_weight(
        name,
        32,
        32,
        bits=record.weight_bits,
        rank=record.global_rank,
        block=record.local_block,
        seed=index,
    )
    read = pack.layer(name)
    assert read.tensors().keys() == made.tensors().keys()
    for tensor_name, tensor in made.tensors().items():
        assert torch.equal(read.tensors()[tensor_name], tensor)
    assert torch.equal(read.signs, made.signs)
    assert torch.equal(read.decode(), made.decode())


def test_pack_and_rebuilt_and_omitted_are_the_whole_network(path):
    pack = open_pack(path)
    layers = {f"{name}.{part}" for name in pack.layer_names for part in ("weight", "bias")}
    parts = [set(pack.tensor_names), layers, {POSITION_TABLE}, unread_tensors(TINY, "q")]
    assert set.union(*parts) == set(tensor_shapes(TINY))
    assert sum(map(len, parts)) == len(tensor_shapes(TINY))
    for name in pack.tensor_names:
        assert pack.tensor(name).dtype == torch.bfloat16
        assert pack.tensor(name).shape == tensor_shapes(TINY)[name]


def test_prompts_and_companions(path):
    pack = open_pack(path)
    assert {name: tuple(t.shape) for name, t in pack.prompts().items()} == {
        "positive.embeds": (PROMPT_TOKENS, 24),
        "positive.pooled": (20,),
        "negative.embeds": (PROMPT_TOKENS, 24),
        "negative.pooled": (20,),
    }
    assert pack.vae_dir == path / "vae"
    assert pack.scheduler_dir == path / "scheduler"


def test_a_pack_of_the_transformer_alone(tmp_path):
    make_pack(tmp_path / "a.qpack", companions=False, prompts=False)
    pack = verify_pack(tmp_path / "a.qpack")
    assert pack.prompts() is None
    assert pack.vae_dir is None
    assert pack.scheduler_dir is None


@pytest.mark.parametrize("variant", ["f", "r1"])
def test_variants(tmp_path, variant):
    make_pack(tmp_path / "a.qpack", variant=variant, signs=False)
    pack = verify_pack(tmp_path / "a.qpack")
    assert pack.variant == variant
    assert pack.config == TINY
    has_control_keys = "transformer_blocks.0.attn.to_k_control" in pack.layer_names
    assert has_control_keys == (variant == "r1")
    assert pack.layer(pack.layer_names[0]).signs is None
    assert pack.signs(32) is None


def test_unknown_names(path):
    pack = open_pack(path)
    with pytest.raises(KeyError):
        pack.layer("transformer_blocks.9.attn.to_q")
    with pytest.raises(KeyError):
        pack.tensor("nothing")


def test_a_link_to_the_pack_itself_is_followed(path, tmp_path):
    (tmp_path / "link.qpack").symlink_to(path)
    assert open_pack(tmp_path / "link.qpack").manifest == open_pack(path).manifest


def test_what_a_hub_adds_is_ignored(path, tmp_path):
    copy = tmp_path / "a.qpack"
    shutil.copytree(path, copy)
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (copy / ".cache" / "huggingface").mkdir(parents=True)
    verify_pack(copy)
    assert other_files(copy) == []


def test_a_hub_cache_of_links_into_blobs_is_a_pack(path, tmp_path):
    blobs = tmp_path / "models--someone--a" / "blobs"
    snapshot = tmp_path / "models--someone--a" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    for file in path.rglob("*"):
        if file.is_file():
            blob = blobs / sha256_of(file)
            shutil.copyfile(file, blob)
            link = snapshot / file.relative_to(path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    assert verify_pack(snapshot).manifest == open_pack(path).manifest
    pack = open_pack(snapshot)
    with PackWriter(tmp_path / "copy.qpack") as writer:
        writer.adopt(pack)
        writer.finish(pack.manifest, pack.bit_grid, "card")
    shutil.rmtree(blobs.parent)
    verify_pack(tmp_path / "copy.qpack")


def test_verify_finds_bits_set_in_the_padding(tmp_path):
    # Rows of 36 codes do not end on a whole word; those of the other tests' network do.
    config = TINY.model_copy(
        update={"num_attention_heads": 3, "attention_head_dim": 12, "caption_projection_dim": 36}
    )
    path = tmp_path / "a.qpack"
    make_pack(path, config=config, companions=False, prompts=False)
    pack = verify_pack(path)
    name = next(n for n in pack.layer_names if pack.manifest.layers[n].weight_bits == 3)
    end = pack.headers["transformer.safetensors"].tensors[f"{name}.codes"].end
    with (path / "transformer.safetensors").open("r+b") as file:
        file.seek(end - 1)
        file.write(b"\x80")
    reseal(path)
    with pytest.raises(PackError, match=f"layer {name}: bits are set in the padding"):
        verify_pack(path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["model"].update(family="flux"), "model.family 'flux' is not known"),
        (lambda m: m["model"].update(variant="z"), "model.variant 'z' is not one of q, f, r1"),
        (lambda m: m["model"]["config"].update(num_layers="2"), "model.config: num_layers"),
        (lambda m: m["model"]["config"].update(extra=1), "model.config: extra"),
        (lambda m: m["model"]["config"].pop("qk_norm"), "does not say every value"),
        (lambda m: m.update(rebuilt=["proj_out.weight"]), "proj_out.weight cannot be rebuilt"),
    ],
)
def test_the_family_decides_what_a_manifest_may_say_of_the_network(path, tmp_path, edit, said):
    pack = tmp_path / "a.qpack"
    shutil.copytree(path, pack)
    edit_manifest(pack, edit)
    with pytest.raises(PackError, match=said):
        open_pack(pack)
