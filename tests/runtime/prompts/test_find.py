"""Which prompts a run has."""

import pytest
import torch
from safetensors.torch import save_file

from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
from runtime.load import load_pack
from runtime.prompts import embedding_cache
from runtime.prompts.encoders import ENCODER_FOLDERS, TextEmbedding
from runtime.prompts.find import check_texts, find_prompts
from runtime.prompts.named import NAMED_PROMPTS
from runtime.prompts.texts import DEFAULT_NEGATIVE, DEFAULT_POSITIVE, PromptTexts
from schemas.errors import CheckpointError, UsageError
from tests.artifacts.make_pack import TINY

NETWORK = Architecture(FAMILY, TINY, "q")
TOKENS = 333


def embedding(text, tokens=TOKENS, width=TINY.joint_attention_dim):
    value = float(len(text))
    return TextEmbedding(
        torch.full((tokens, width), value), torch.full((TINY.pooled_projection_dim,), value)
    )


def stored(value, tokens=TOKENS):
    found = {}
    for side in ("positive", "negative"):
        found[f"{side}.embeds"] = torch.full((tokens, TINY.joint_attention_dim), value)
        found[f"{side}.pooled"] = torch.full((TINY.pooled_projection_dim,), value)
    return found


@pytest.fixture
def base(tmp_path, monkeypatch):
    for name in ENCODER_FOLDERS:
        (tmp_path / "sd35" / name).mkdir(parents=True)
    monkeypatch.setattr(embedding_cache, "user_cache", lambda: None)
    monkeypatch.setattr(
        embedding_cache, "encode_texts", lambda _folder, texts: [embedding(t) for t in texts]
    )
    return tmp_path / "sd35"


def values(own, folders, texts):
    """First value of both sides' embeddings."""
    prompts, captions = find_prompts(own, folders, texts, NETWORK, hint="")
    assert float(prompts.positive_pooled[0]) == float(prompts.positive_embeds[0, 0])
    assert {float(captions[text].embeds[0, 0]) for text in texts.captions} == {
        float(len(text)) for text in texts.captions
    }
    return float(prompts.positive_embeds[0, 0]), float(prompts.negative_embeds[0, 0])


def test_the_order_of_sources(base):
    plain = PromptTexts()
    defaults = (len(DEFAULT_POSITIVE), len(DEFAULT_NEGATIVE))
    assert values(stored(0.5), [base], plain) == (0.5, 0.5)
    assert values(None, [base], plain) == defaults
    save_file(stored(0.25), base / "prompts.safetensors")
    assert values(None, [base], plain) == (0.25, 0.25)
    assert values(stored(0.5), [base], PromptTexts("abc")) == (3, 0.5)
    assert values(stored(0.5), [base], PromptTexts(negative="")) == (0.5, 0)
    assert values(stored(0.5), [base], PromptTexts(captions=frozenset(["a", "bb"]))) == (0.5, 0.5)


def test_texts_without_encoders(tmp_path):
    with pytest.raises(UsageError, match="no text encoders") as error:
        find_prompts(stored(0.5), [tmp_path], PromptTexts("abc"), NETWORK, hint="")
    assert "--base" in error.value.hint
    with pytest.raises(UsageError, match="no prompt embeddings") as error:
        find_prompts(None, [tmp_path], PromptTexts(), NETWORK, hint="give some")
    assert error.value.hint == "give some"


def test_names_in_place_of_encoders(tmp_path):
    named = {}
    for value, name in enumerate(("sharp", "low quality"), start=2):
        named[f"{name}.embeds"] = torch.full((TOKENS, TINY.joint_attention_dim), float(value))
        named[f"{name}.pooled"] = torch.full((TINY.pooled_projection_dim,), float(value))
    save_file(named, tmp_path / "named-prompts.safetensors")
    texts = PromptTexts("sharp", captions=frozenset(["low quality"]))
    prompts, captions = find_prompts(stored(0.5), [tmp_path], texts, NETWORK, hint="")
    assert float(prompts.positive_embeds[0, 0]) == float(prompts.positive_pooled[0]) == 2
    assert float(prompts.negative_embeds[0, 0]) == 0.5
    assert float(captions["low quality"].pooled[0]) == 3

    with pytest.raises(UsageError, match="'shrap' is no prompt of") as error:
        find_prompts(stored(0.5), [tmp_path], PromptTexts("shrap"), NETWORK, hint="")
    assert error.value.hint == "it knows 'low quality', 'sharp'"
    for broken, said in (
        ({"sharp.embeds": named["sharp.embeds"]}, "sharp.pooled is missing"),
        ({**named, "sharp.pooled": named["sharp.pooled"] * torch.nan}, "finite numbers"),
        ({**named, "sharp.embeds": torch.zeros(3, 1)}, "the prompts have embeds"),
    ):
        save_file(broken, tmp_path / "named-prompts.safetensors")
        with pytest.raises((CheckpointError, UsageError), match=said):
            find_prompts(stored(0.5), [tmp_path], PromptTexts("sharp"), NETWORK, hint="")


def test_stored_prompts_of_another_length(base):
    short = stored(0.5, tokens=7)
    with pytest.raises(UsageError, match="own negative prompt has 7 tokens") as error:
        find_prompts(short, [base], PromptTexts("abc"), NETWORK, hint="")
    assert error.value.hint == "give --negative-prompt too"
    with pytest.raises(UsageError, match="own positive and negative prompt has 7"):
        find_prompts(short, [base], PromptTexts(captions=frozenset(["a"])), NETWORK, hint="")
    assert values(short, [base], PromptTexts("abc", "de")) == (3, 2)


def test_encoders_of_another_model(base, monkeypatch):
    monkeypatch.setattr(
        embedding_cache,
        "encode_texts",
        lambda _folder, texts: [embedding(t, width=TINY.joint_attention_dim + 2) for t in texts],
    )
    with pytest.raises(UsageError, match="the prompts have embeds"):
        find_prompts(None, [base], PromptTexts(), NETWORK, hint="")


def test_a_file_of_something_else(base):
    good = stored(0.5, tokens=3)
    for bad in (
        {"positive.embeds": torch.zeros(1)},
        {**good, "negative.pooled": torch.zeros(4)},
        {**good, "negative.pooled": torch.full_like(good["negative.pooled"], torch.nan)},
        {**good, "extra": torch.zeros(1)},
    ):
        save_file(bad, base / "prompts.safetensors")
        with pytest.raises(CheckpointError, match=r"prompts\.safetensors"):
            find_prompts(None, [base], PromptTexts(), NETWORK, hint="")


def test_texts_are_checked_before_anything_is_loaded(tmp_path, base):
    named = {f"detailed.{part}": torch.ones(3) for part in ("embeds", "pooled")}
    save_file(named, tmp_path / NAMED_PROMPTS)
    check_texts([tmp_path], PromptTexts("detailed"))
    check_texts([tmp_path, base], PromptTexts("any words"))
    check_texts([], PromptTexts())
    with pytest.raises(UsageError, match="'detaild' is no prompt"):
        check_texts([tmp_path], PromptTexts("detaild"))
    with pytest.raises(UsageError, match="no text encoders"):
        check_texts([], PromptTexts("any words"))


def test_an_unknown_name_is_refused_before_the_pack_is_opened(tmp_path):
    save_file({"detailed.embeds": torch.ones(3)}, tmp_path / NAMED_PROMPTS)
    (tmp_path / "no.qpack").mkdir()
    with pytest.raises(UsageError, match="'detaild' is no prompt"):
        load_pack(
            tmp_path / "no.qpack",
            base=tmp_path,
            texts=PromptTexts("detaild"),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
