"""Prompts through tiny text encoders of the three kinds that Stable Diffusion 3 has."""

import builtins
import gc
import json
import shutil
import socket

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from runtime.prompts.encoders import (
    CLIP_TOKENS,
    T5_TOKENS,
    encode_texts,
    has_text_encoders,
)
from runtime.prompts.texts import DEFAULT_NEGATIVE, DEFAULT_POSITIVE
from schemas.errors import CheckpointError, UsageError
from tests.artifacts.make_pack import TINY
from tests.planner.make_base import CLIP_WIDTHS, make_base

TEXTS = ("a sharp photo of a cat", "blurry")
POINTER = b"version https://git-lfs.github.com/spec/v1\n"
ENCODERS = (transformers.CLIPTextModelWithProjection, transformers.T5EncoderModel)


@pytest.fixture(scope="module")
def shared_base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "sd35")


@pytest.fixture
def base(shared_base, tmp_path):
    """A folder of the test's own, to be damaged."""
    return shutil.copytree(shared_base, tmp_path / "sd35")


@torch.no_grad()
def composed(base, text):
    """One prompt, put together by hand in the words of the SD3 paper: embeds and pooled."""
    rows = torch.zeros(CLIP_TOKENS + T5_TOKENS, TINY.joint_attention_dim)
    pooled, column = [], 0
    for suffix in ("", "_2"):
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(base / f"tokenizer{suffix}")
        folder = base / f"text_encoder{suffix}"
        model = ENCODERS[0].from_pretrained(folder, dtype=torch.bfloat16).eval()
        ids = tokenizer(text).input_ids
        assert 2 < len(ids) < CLIP_TOKENS
        ids += [tokenizer.pad_token_id] * (CLIP_TOKENS - len(ids))
        output = model(torch.tensor([ids]), output_hidden_states=True)
        width = model.config.hidden_size
        # Three layers give four states; the one before the last layer is number 2.
        rows[:CLIP_TOKENS, column : column + width] = output.hidden_states[2][0]
        pooled.append(output.text_embeds[0].float())
        column += width
    tokenizer = transformers.T5TokenizerFast.from_pretrained(base / "tokenizer_3")
    model = ENCODERS[1].from_pretrained(base / "text_encoder_3", dtype=torch.bfloat16).eval()
    ids = tokenizer(text).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    ids += [0] * (T5_TOKENS - len(ids))
    rows[CLIP_TOKENS:] = model(torch.tensor([ids])).last_hidden_state[0]
    return rows, torch.cat(pooled)


def test_a_text_is_composed_as_stable_diffusion_3_does(shared_base):
    for text, found in zip(TEXTS, encode_texts(shared_base, TEXTS), strict=True):
        embeds, pooled = composed(shared_base, text)
        assert found.embeds.shape == (77 + 256, TINY.joint_attention_dim)
        assert found.pooled.shape == (TINY.pooled_projection_dim,)
        assert found.embeds.dtype == found.pooled.dtype == torch.bfloat16
        assert torch.equal(found.embeds.float(), embeds)
        assert torch.equal(found.pooled.float(), pooled)
        assert not found.embeds[:CLIP_TOKENS, sum(CLIP_WIDTHS) :].any()


def test_an_embedding_does_not_depend_on_the_texts_beside_it(shared_base):
    alone = encode_texts(shared_base, TEXTS[:1])[0]
    among = encode_texts(shared_base, ["noisy", "a b c", TEXTS[0]])[2]
    assert torch.equal(alone.embeds, among.embeds)
    assert torch.equal(alone.pooled, among.pooled)


def test_empty_and_overlong_prompts_keep_the_length(shared_base):
    empty, long = encode_texts(shared_base, ["", "word " * 500])
    assert empty.embeds.shape == long.embeds.shape
    assert bool(torch.isfinite(long.embeds).all())


def test_the_default_prompts_are_two_different_texts_that_fit(shared_base):
    positive, negative = encode_texts(shared_base, [DEFAULT_POSITIVE, DEFAULT_NEGATIVE])
    assert not torch.equal(positive.pooled, negative.pooled)
    # Published CLIP takes 77 tokens; English has about four letters per token.
    assert max(len(DEFAULT_POSITIVE), len(DEFAULT_NEGATIVE)) < 4 * CLIP_TOKENS


def test_one_encoder_is_in_memory_at_a_time_and_nothing_is_fetched(shared_base, monkeypatch):
    loads = []

    def spy(encoder):
        true_load = encoder.from_pretrained

        def load(*args, **kwargs):
            alive = [o for o in gc.get_objects() if type(o) in ENCODERS]
            loads.append((encoder, len(alive), kwargs))
            return true_load(*args, **kwargs)

        monkeypatch.setattr(encoder, "from_pretrained", load)

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was reached for")

    gc.collect()
    for encoder in ENCODERS:
        spy(encoder)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    encode_texts(shared_base, TEXTS)
    assert [encoder for encoder, _, _ in loads] == [ENCODERS[0], ENCODERS[0], ENCODERS[1]]
    assert [alive for _, alive, _ in loads] == [0, 0, 0]
    for _, _, options in loads:
        assert options["local_files_only"]
        assert options["use_safetensors"]


def test_without_transformers_the_error_says_what_to_install(shared_base, monkeypatch):
    true_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "transformers":
            raise ImportError(name)
        return true_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="transformers") as error:
        encode_texts(shared_base, TEXTS)
    assert error.value.hint == "pip install 'qdit4sr[prompts]'"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("text_encoder/config.json", b"{", "text_encoder cannot be loaded"),
        ("text_encoder_2/model.safetensors", b"", "text_encoder_2 cannot be loaded"),
        ("text_encoder_3/model.safetensors", POINTER, "text_encoder_3 cannot be loaded"),
        ("text_encoder_3/model.safetensors", None, "text_encoder_3 cannot be loaded"),
        ("tokenizer/vocab.json", b"", "text_encoder cannot be loaded"),
        ("tokenizer_2/vocab.json", None, "tokenizer_2 has no vocabulary"),
        ("tokenizer_3/tokenizer.json", POINTER, "text_encoder_3 cannot be loaded"),
        ("tokenizer_3/tokenizer.json", None, "tokenizer_3 has no vocabulary"),
    ],
)
def test_a_damaged_encoder_is_named(base, file, content, said):
    if content is None:
        (base / file).unlink()
    else:
        (base / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as error:
        encode_texts(base, TEXTS)
    assert "\n" not in str(error.value)


def test_another_models_tokenizer_is_noticed(base):
    vocabulary = json.loads((base / "tokenizer" / "vocab.json").read_text())
    more = {token: index + 500 for token, index in vocabulary.items()}
    (base / "tokenizer" / "vocab.json").write_text(json.dumps(more))
    with pytest.raises(CheckpointError, match="tokenizer does not belong to text_encoder"):
        encode_texts(base, TEXTS)


def test_an_encoder_without_some_tensors_is_not_filled_up_with_random_ones(base):
    file = base / "text_encoder_2" / "model.safetensors"
    state = load_file(file)
    del state["text_projection.weight"]
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"text_encoder_2 lacks text_projection\.weight"):
        encode_texts(base, TEXTS)


def test_nothing_is_printed(base, capfd):
    encode_texts(base, TEXTS)
    assert capfd.readouterr() == ("", "")


def test_a_pickled_encoder_is_not_loaded(base):
    weights = base / "text_encoder" / "model.safetensors"
    torch.save({}, base / "text_encoder" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(CheckpointError, match="text_encoder cannot be loaded"):
        encode_texts(base, TEXTS)


def test_clip_wider_than_t5_is_refused(tmp_path):
    base = make_base(tmp_path / "sd35", clip_widths=(16, 12))
    with pytest.raises(CheckpointError, match="28 wide together, T5 only 24"):
        encode_texts(base, TEXTS)


def test_encoders_count_only_together(base):
    assert has_text_encoders(base)
    shutil.rmtree(base / "tokenizer_3")
    assert not has_text_encoders(base)
