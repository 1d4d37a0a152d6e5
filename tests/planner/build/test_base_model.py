"""What goes beside the transformer, and where it is looked for."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.checkpoint.sampling_defaults import read_sampling_defaults
from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
from artifacts.pack.file_names import COMPANION_FILES
from planner.build.base_model import find_base_model, read_embeddings
from runtime.prompts.texts import PromptTexts
from schemas.errors import CheckpointError, UsageError
from schemas.json_io import dump_json
from tests.artifacts.make_checkpoint import random_state, write_file, write_folder
from tests.artifacts.make_pack import TINY
from tests.planner.make_base import make_base, make_embeddings

ARCHITECTURE = Architecture(FAMILY, TINY, "q")
SAMPLING = ARCHITECTURE.sampling
TEXTS = PromptTexts("a", "b")


@pytest.fixture
def checkpoint(tmp_path):
    return open_checkpoint(write_file(tmp_path / "m.safetensors", random_state()))


@pytest.fixture
def pipeline(tmp_path):
    """A whole pipeline: the transformer with VAE and scheduler beside it."""
    return write_folder(make_base(tmp_path / "pipeline", encoders=False), random_state())


@pytest.fixture
def encoded(monkeypatch):
    """Stands in for the text encoders (`test_prompts` has the real ones)."""
    calls = []

    def encode(folder, texts):
        calls.append((folder, texts))
        return load_file(make_embeddings(folder / "made.safetensors", seed=9))

    monkeypatch.setattr("planner.build.base_model.encode_prompts", encode)
    monkeypatch.setattr(
        "planner.build.base_model.has_text_encoders", lambda f: (f / "enc").is_dir()
    )
    return calls


def same(left, right):
    return set(left) == set(right) and all(torch.equal(left[n], right[n]) for n in left)


def write_sampling(folder, steps):
    sampling = SAMPLING.model_copy(update={"steps": steps})
    (folder / "sampling.json").write_bytes(dump_json(sampling))
    return sampling


def test_a_transformer_alone(checkpoint):
    model = find_base_model(checkpoint, None)
    assert (model.folder, model.prompts, model.sampling) == (None, None, SAMPLING)
    (warning,) = model.warnings
    assert "VAE, scheduler and prompts" in warning
    assert "--base" in warning


def test_parts_beside_the_checkpoint_are_found(pipeline):
    ready = make_embeddings(pipeline / "prompts.safetensors")
    sampling = write_sampling(pipeline, 7)
    model = find_base_model(open_checkpoint(pipeline), None)
    assert model.folder == pipeline
    assert same(model.prompts, load_file(ready))
    assert (model.sampling, model.warnings) == (sampling, [])


def test_a_base_goes_before_the_checkpoints_own_folder(pipeline, tmp_path):
    base = make_base(tmp_path / "base", encoders=False)
    make_embeddings(pipeline / "prompts.safetensors", seed=1)
    ready = make_embeddings(base / "prompts.safetensors", seed=2)
    model = find_base_model(open_checkpoint(pipeline), base)
    assert model.folder == base
    assert same(model.prompts, load_file(ready))


def test_what_the_base_lacks_comes_from_the_checkpoints_folder(tmp_path):
    source = write_folder(tmp_path / "m", random_state())
    ready = make_embeddings(source / "prompts.safetensors")
    sampling = write_sampling(source, 7)
    base = make_base(tmp_path / "base", encoders=False)
    model = find_base_model(open_checkpoint(source), base)
    assert model.folder == base
    assert same(model.prompts, load_file(ready))
    assert model.sampling == sampling
    # Even where there is no VAE to go with them.
    model = find_base_model(open_checkpoint(source), None)
    assert same(model.prompts, load_file(ready))
    assert model.sampling == sampling
    assert "no VAE and scheduler;" in model.warnings[0]


def test_sampling_belongs_to_the_transformer(pipeline, tmp_path):
    base = make_base(tmp_path / "base", encoders=False)
    of_base = write_sampling(base, 5)
    assert find_base_model(open_checkpoint(pipeline), base).sampling == of_base
    own = write_sampling(pipeline, 7)
    assert find_base_model(open_checkpoint(pipeline), base).sampling == own


def test_ready_embeddings_spare_the_encoders_unless_texts_are_given(checkpoint, tmp_path, encoded):
    base = make_base(tmp_path / "base", encoders=False)
    (base / "enc").mkdir()
    ready = load_file(make_embeddings(base / "prompts.safetensors", seed=1))
    assert same(find_base_model(checkpoint, base).prompts, ready)
    assert encoded == []
    assert not same(find_base_model(checkpoint, base, texts=TEXTS).prompts, ready)
    (base / "prompts.safetensors").unlink()
    find_base_model(checkpoint, base)
    assert encoded == [(base, TEXTS), (base, PromptTexts())]


def test_given_embeddings_go_before_everything(pipeline, tmp_path, encoded):
    (pipeline / "enc").mkdir()
    make_embeddings(pipeline / "prompts.safetensors", seed=1)
    given = make_embeddings(tmp_path / "mine.safetensors", seed=2)
    model = find_base_model(open_checkpoint(pipeline), None, embeddings=given)
    assert same(model.prompts, load_file(given))
    assert encoded == []


def test_text_that_nothing_can_encode(checkpoint, pipeline):
    with pytest.raises(UsageError, match="no text encoders"):
        find_base_model(checkpoint, None, texts=TEXTS)
    make_embeddings(pipeline / "prompts.safetensors")
    with pytest.raises(UsageError, match="no text encoders"):
        find_base_model(open_checkpoint(pipeline), None, texts=TEXTS)


def test_a_prompt_by_its_name(pipeline):
    ready = load_file(make_embeddings(pipeline / "prompts.safetensors"))
    sharp = {part: ready[f"positive.{part}"] + 1 for part in ("embeds", "pooled")}
    named = {f"sharp.{part}": tensor for part, tensor in sharp.items()}
    save_file(named, pipeline / "named-prompts.safetensors")
    model = find_base_model(open_checkpoint(pipeline), None, texts=PromptTexts("sharp"))
    expected = ready | {f"positive.{part}": tensor for part, tensor in sharp.items()}
    assert same(model.prompts, expected)
    with pytest.raises(UsageError, match="'soft' is no prompt"):
        find_base_model(open_checkpoint(pipeline), None, texts=PromptTexts(negative="soft"))


def test_text_and_embeddings_together(checkpoint, tmp_path):
    given = make_embeddings(tmp_path / "mine.safetensors")
    with pytest.raises(UsageError, match="both as text and as embeddings"):
        find_base_model(checkpoint, None, embeddings=given, texts=TEXTS)


@pytest.mark.parametrize("name", COMPANION_FILES)
def test_an_incomplete_base_is_named(checkpoint, tmp_path, name):
    base = make_base(tmp_path / "base", encoders=False)
    (base / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        find_base_model(checkpoint, base)


def test_a_base_that_is_not_there(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        find_base_model(checkpoint, tmp_path / "absent")


@pytest.mark.parametrize("name", COMPANION_FILES)
@pytest.mark.parametrize("content", [b"", b"[]", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_base_is_found_before_any_work(checkpoint, tmp_path, name, content):
    base = make_base(tmp_path / "base", encoders=False)
    (base / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        find_base_model(checkpoint, base)


def test_a_damaged_part_beside_the_checkpoint_is_found_too(pipeline):
    (pipeline / "vae" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="vae"):
        find_base_model(open_checkpoint(pipeline), None)


EMBEDS, POOLED = "positive.embeds", "negative.pooled"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({EMBEDS: torch.zeros(7, 23)}, r"positive\.embeds .* \[7, 23\].* \[7, 24\]"),
        ({EMBEDS: torch.zeros(6, 24)}, r"negative\.embeds"),
        ({EMBEDS: torch.zeros(1, 7, 24)}, EMBEDS),
        ({EMBEDS: torch.zeros(0, 24)}, EMBEDS),
        ({POOLED: torch.zeros(21)}, POOLED),
        ({POOLED: torch.zeros(20, dtype=torch.int32)}, POOLED),
        ({POOLED: torch.zeros(20, dtype=torch.float64)}, POOLED),
        ({POOLED: torch.full((20,), torch.nan)}, "NaN"),
        ({"extra": torch.zeros(1)}, "extra"),
    ],
)
def test_embeddings_that_do_not_fit_the_transformer(checkpoint, tmp_path, changes, said):
    file = make_embeddings(tmp_path / "mine.safetensors", **changes)
    with pytest.raises(CheckpointError, match=said):
        read_embeddings(file, checkpoint)


def test_embeddings_with_a_missing_tensor_or_none(checkpoint, tmp_path):
    tensors = load_file(make_embeddings(tmp_path / "mine.safetensors"))
    del tensors[EMBEDS]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"must be .*positive\.embeds"):
        read_embeddings(tmp_path / "less.safetensors", checkpoint)
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="found none"):
        read_embeddings(tmp_path / "none.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_embeddings(tmp_path / "absent.safetensors", checkpoint)


def test_the_colour_correction_is_the_one_that_was_measured_to_be_closer():
    """docs/results/color_fix.md; a family's defaults are those of every pack built from it."""
    assert read_sampling_defaults(None, ARCHITECTURE).color_fix == "wavelet"


def test_sampling_defaults_beside_a_checkpoint(tmp_path):
    assert read_sampling_defaults(None, ARCHITECTURE) == SAMPLING
    assert read_sampling_defaults(tmp_path, ARCHITECTURE) == SAMPLING
    assert read_sampling_defaults(tmp_path / "absent", ARCHITECTURE) == SAMPLING
    sampling = write_sampling(tmp_path, 12)
    assert read_sampling_defaults(tmp_path, ARCHITECTURE) == sampling
    assert sampling.steps == 12


@pytest.mark.parametrize(
    "edit",
    [
        {"steps": 0},
        {"steps": "4"},
        {"tile_latent": 3},
        {"tile_latent": 18},
        {"overlap_latent": 16},
        {"shfit": 1.0},
        {"shift": -1.0},
    ],
)
def test_senseless_sampling_defaults_are_refused(tmp_path, edit):
    content = SAMPLING.model_dump(mode="json") | edit
    (tmp_path / "sampling.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"sampling\.json"):
        read_sampling_defaults(tmp_path, ARCHITECTURE)


def test_a_folder_of_the_encoders_alone_is_no_base(checkpoint, tmp_path):
    base = make_base(tmp_path / "base", encoders=False)
    shutil.rmtree(base / "vae")
    with pytest.raises(CheckpointError, match="not a Stable Diffusion"):
        find_base_model(checkpoint, base)
