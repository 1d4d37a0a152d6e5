import pytest

from artifacts.files import atomic_swap
from artifacts.files.atomic_swap import put_in_place


def folder(path, content):
    path.mkdir()
    (path / "file").write_text(content)
    return path


@pytest.mark.parametrize("can_exchange", [True, False])
def test_replaces_and_leaves_nothing_behind(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic_swap, "_exchange", lambda first, second: False)
    folder(tmp_path / "pack", "old")
    put_in_place(folder(tmp_path / ".pack.partial-1", "new"), tmp_path / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]
    assert (tmp_path / "pack" / "file").read_text() == "new"


def test_where_nothing_was(tmp_path):
    put_in_place(folder(tmp_path / "new", "new"), tmp_path / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_two_renames_are_undone_when_the_second_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_swap, "_exchange", lambda first, second: False)
    folder(tmp_path / "pack", "old")
    new = folder(tmp_path / ".pack.partial-1", "new")
    rename = type(new).rename

    def failing(self, target):
        if self == new:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(new), "rename", failing)
    with pytest.raises(OSError, match="No space"):
        put_in_place(new, tmp_path / "pack")
    assert (tmp_path / "pack" / "file").read_text() == "old"
