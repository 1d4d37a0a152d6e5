"""Embeddings that are kept, so that no text is encoded twice."""

import pytest
import torch

from runtime.prompts import embedding_cache
from runtime.prompts.embedding_cache import encode_cached
from runtime.prompts.encoders import ENCODER_FOLDERS, TextEmbedding
from schemas.errors import PackError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qdit4sr" / "prompts"


@pytest.fixture
def base(tmp_path):
    for name in ENCODER_FOLDERS:
        (tmp_path / "sd35" / name).mkdir(parents=True)
        (tmp_path / "sd35" / name / "config.json").write_text("{}")
    return tmp_path / "sd35"


@pytest.fixture
def encoded(monkeypatch):
    """Stands in for the encoders; what was encoded until now."""
    calls = []

    def encode(_folder, texts):
        calls.append(list(texts))
        return [value_of(text) for text in texts]

    monkeypatch.setattr(embedding_cache, "encode_texts", encode)
    return calls


def value_of(text):
    return TextEmbedding(
        torch.full((4, 6), len(text), dtype=torch.bfloat16),
        torch.full((3,), len(text), dtype=torch.bfloat16),
    )


def same(found, text):
    expected = value_of(text)
    return torch.equal(found.embeds, expected.embeds) and torch.equal(found.pooled, expected.pooled)


def test_a_text_is_encoded_once(base, cache, encoded):
    assert same(encode_cached(base, ["a", "bb"])["bb"], "bb")
    again = encode_cached(base, ["bb", "ccc", "a"])
    assert encoded == [["a", "bb"], ["ccc"]]
    assert all(same(again[text], text) for text in ("a", "bb", "ccc"))
    assert sorted(again) == ["a", "bb", "ccc"]
    assert len([*cache.iterdir()]) == len(again) == 3


def test_other_encoders_have_embeddings_of_their_own(base, cache, encoded):
    encode_cached(base, ["a"])
    (base / "text_encoder_2" / "config.json").write_text('{"hidden_size": 8}')
    encode_cached(base, ["a"])
    assert encoded == [["a"], ["a"]]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "foreign"])
def test_what_is_damaged_is_made_anew(base, cache, encoded, damage):
    encode_cached(base, ["a"])
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    contents = {"cut": data[:-2], "flipped": data, "emptied": b"", "foreign": b"<html>"}
    file.write_bytes(contents[damage])
    assert same(encode_cached(base, ["a"])["a"], "a")
    assert encoded == [["a"], ["a"]]


def test_without_a_place_to_write_to_embeddings_stay_in_memory(base, cache, encoded, monkeypatch):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder would be")
    assert same(encode_cached(base, ["a"])["a"], "a")
    monkeypatch.setattr(embedding_cache, "user_cache", lambda: None)
    assert same(encode_cached(base, ["a"])["a"], "a")
    assert encoded == [["a"], ["a"]]


def test_many_texts_are_encoded_in_parts(base, cache, encoded, monkeypatch):
    monkeypatch.setattr(embedding_cache, "ENCODED_AT_ONCE", 2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    found = encode_cached(base, texts)
    assert [len(part) for part in encoded] == [2, 2, 1]
    assert all(same(found[text], text) for text in texts)


def test_a_cache_that_is_emptied_meanwhile_is_an_error_not_a_wrong_prompt(base, cache, encoded):
    found = encode_cached(base, ["a"])
    for file in cache.iterdir():
        file.unlink()
    with pytest.raises(PackError, match="cannot be read"):
        found["a"]
