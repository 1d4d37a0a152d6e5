"""Which words name a pack on the hub, and which a place on this machine."""

from pathlib import Path

import pytest

from artifacts.hub.names import HubName, check_repository, hub_name
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("org/name@v1.0", HubName("org/name", "v1.0")),
        ("org/name@refs/pr/3", HubName("org/name", "refs/pr/3")),
        ("hf://org/name@0a1b", HubName("org/name", "0a1b")),
        ("hf://org/x.qpack", HubName("org/x.qpack")),
        ("models/x.qpack", None),
        ("name", None),
        ("/org/name", None),
        ("../org/name", None),
        ("./name", None),
        ("a/b/c", None),
        ("org/name@", None),
    ],
)
def test_names(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    assert hub_name(Path(text)) == expected


def test_what_is_here_is_meant_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packs").mkdir()
    assert hub_name(Path("packs/mistyped")) is None
    assert hub_name(Path("hf://packs/other")) == HubName("packs/other")


@pytest.mark.parametrize("text", ["hf://name", "hf://a/b/c", "hf:///"])
def test_the_scheme_needs_a_name(text):
    with pytest.raises(UsageError, match="hub"):
        hub_name(Path(text))


@pytest.mark.parametrize("text", ["name", "a/b/c", "a/b@main", "-a/b", "a b/c"])
def test_a_repository_is_two_words(text):
    with pytest.raises(UsageError, match="org/name"):
        check_repository(text)
