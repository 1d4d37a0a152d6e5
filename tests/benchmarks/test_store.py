"""Finished rows on disk."""

import pytest

from benchmarks.quality import store as module
from benchmarks.quality.store import RowStore, key_of


def test_a_row_comes_back_under_its_name_and_key_alone(tmp_path):
    store = RowStore(tmp_path / "rows")
    assert store.load("W4A4/rtn", "k") is None
    content = {"values": {"latent_db": [[1.5, 2.5]]}, "content": "abc"}
    store.save("W4A4/rtn", "k", content)
    assert store.load("W4A4/rtn", "k") == content
    assert store.load("W4A4/rtn", "other") is None
    assert store.load("W4A4/quarot", "k") is None
    assert [p.suffix for p in store.folder.iterdir()] == [".json"]


def test_a_network_is_found_under_another_name(tmp_path):
    store = RowStore(tmp_path)
    assert store.find("abc") is None
    store.save("W4A6/q-dit4sr", "k", {"content": "abc", "values": {}})
    store.save("peer", "k", {"values": {}})
    assert store.find("abc")["content"] == "abc"
    assert store.find("abd") is None


def test_a_write_that_fails_leaves_no_row(tmp_path, monkeypatch):
    store = RowStore(tmp_path)

    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        store.save("a", "k", {"values": {}})
    assert store.load("a", "k") is None
    assert store.find("x") is None


def test_keys_depend_on_every_part_and_on_the_format(monkeypatch):
    key = key_of({"a": 1, "b": [2, 3]})
    assert key == key_of({"b": [2, 3], "a": 1})
    assert key != key_of({"a": 1, "b": [3, 2]})
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert key != key_of({"a": 1, "b": [2, 3]})


def test_numbers_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        RowStore(tmp_path).save("a", "k", {"values": float("nan")})
