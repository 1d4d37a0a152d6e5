"""The base model from a folder, and from the single files that ComfyUI works with."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.base.files import BaseFiles
from runtime.base.folder import base_folder
from runtime.load import load_vae
from runtime.prompts.encoders import encode_texts
from schemas.errors import CheckpointError, UsageError
from tests.runtime.base.published import VAE, make_published_base, make_single_files

CPU = torch.device("cpu")
TEXTS = ["a cat, sharp", ""]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    base = make_published_base(folder / "sd35")
    return base, make_single_files(base, folder / "files")


@pytest.fixture
def base(shared):
    return shared[0]


@pytest.fixture
def files(shared, tmp_path):
    """Single files of the test's own, to be damaged."""
    folder = shutil.copytree(shared[1].base.parent, tmp_path / "files")
    names = [folder / file.name for file in (shared[1].base, *shared[1].encoders)]
    return BaseFiles(*names, tokenizers=shared[0])


def test_a_folder_is_taken_as_it_is(base):
    with base_folder(BaseFiles(base)) as folder:
        assert folder == base
    with base_folder(BaseFiles()) as folder:
        assert folder is None


def test_single_files_are_the_same_model(base, files):
    with base_folder(files) as folder, torch.no_grad():
        ours, theirs = load_vae(folder / "vae", CPU), load_vae(base / "vae", CPU)
        for name, value in VAE.items():
            assert ours.config[name] == value, name
        pixels = torch.linspace(-1, 1, 3 * 32 * 40).view(1, 3, 32, 40)
        latent = theirs.encode(pixels).latent_dist.mean
        assert torch.equal(ours.encode(pixels).latent_dist.mean, latent)
        assert torch.equal(ours.decode(latent).sample, theirs.decode(latent).sample)
        for found, expected in zip(
            encode_texts(folder, TEXTS), encode_texts(base, TEXTS), strict=True
        ):
            assert torch.equal(found.embeds, expected.embeds)
            assert torch.equal(found.pooled, expected.pooled)
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        assert scheduler["shift"] == 3.0
    assert not folder.exists()


def test_single_encoders_beside_a_folder_without(base, files, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(base / "vae", bare / "vae")
    with base_folder(replace(files, base=bare)) as folder:
        assert (folder / "vae" / "config.json").read_bytes() == (
            base / "vae" / "config.json"
        ).read_bytes()
        assert torch.equal(
            encode_texts(folder, TEXTS)[0].embeds, encode_texts(base, TEXTS)[0].embeds
        )


def test_the_vocabularies_of_comfyui(base, files, tmp_path):
    comfy = tmp_path / "comfy"
    shutil.copytree(base / "tokenizer", comfy / "sd1_tokenizer")
    shutil.copytree(base / "tokenizer_3", comfy / "text_encoders" / "t5_tokenizer")
    with base_folder(replace(files, tokenizers=comfy)) as folder:
        first, second = encode_texts(folder, TEXTS)
    expected = encode_texts(base, TEXTS)
    # CLIP-L and T5 are the same; CLIP-G fills short texts up with "!".
    assert torch.equal(first.embeds[:, :64], expected[0].embeds[:, :64])
    assert torch.equal(first.embeds[77:], expected[0].embeds[77:])
    notes = json.loads((base / "tokenizer_2" / "tokenizer_config.json").read_text())
    (base / "tokenizer_2" / "tokenizer_config.json").write_text(
        json.dumps({**notes, "pad_token": "!"})
    )
    try:
        again = encode_texts(base, TEXTS)
    finally:
        (base / "tokenizer_2" / "tokenizer_config.json").write_text(json.dumps(notes))
    assert torch.equal(again[1].embeds, second.embeds)
    assert not torch.equal(again[1].embeds, expected[1].embeds)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_g": None}, "go together: 2 of them"),
        ({"clip_l": None, "clip_g": None, "t5xxl": None}, "--tokenizers goes with"),
        ({"tokenizers": None}, "no vocabularies"),
    ],
)
def test_files_that_are_not_enough(files, changes, said):
    with pytest.raises(UsageError, match=said), base_folder(replace(files, **changes)):
        pass


def refuse(files, said):
    with pytest.raises(CheckpointError, match=said), base_folder(files):
        pass


def test_another_models_file_is_named(files, tmp_path):
    refuse(replace(files, clip_l=files.t5xxl), r"t5xxl\.safetensors: not the encoder")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    refuse(BaseFiles(tmp_path / "other.safetensors"), "no autoencoder of Stable Diffusion")
    (tmp_path / "page").write_bytes(b"<!doctype html>")
    refuse(BaseFiles(tmp_path / "page"), "a web page, not safetensors")


def test_scaled_weights_are_refused(files):
    state = load_file(files.t5xxl)
    save_file({**state, "encoder.block.0.scale_weight": torch.ones(1)}, files.t5xxl)
    refuse(files, "scaled 8-bit")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.pop("first_stage_model.decoder.mid.block_1.conv1.weight"), "differs"),
        (lambda s: s.pop("first_stage_model.encoder.conv_in.weight"), "no autoencoder"),
        (
            lambda s: s.update(
                {"first_stage_model.decoder.conv_in.weight": torch.zeros(32, 4, 3, 3)}
            ),
            "has 4 latent channels",
        ),
    ],
)
def test_a_damaged_autoencoder(files, edit, said):
    state = load_file(files.base)
    edit(state)
    save_file(state, files.base)
    refuse(files, said)
