"""Which file belongs to which: the conventions of the public test sets, and what is refused."""

import unicodedata
from pathlib import Path

import pytest

from runtime.evaluation.datasets import (
    NO_TRUTH,
    check_sizes,
    match,
    open_datasets,
    pair_key,
    result_files,
)
from schemas.errors import UsageError


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")  # names alone are looked at
    return folder


def truths_of(dataset):
    return {pair.low.name: pair.truth.name for pair in dataset.pairs}


@pytest.mark.parametrize(
    ("lows", "truths"),
    [
        (["Canon_001_LR4.png", "Nikon_001_LR4.png"], ["Canon_001_HR.png", "Nikon_001_HR.png"]),
        (["Canon_10_x1.png", "sony_9_x1.png"], ["Canon_10_x4.png", "sony_9_x4.png"]),
        (["Canon_001_LR4.png"], ["Canon_001_LR4.png"]),
        (["P1170978_x1.png", "a_HR.png"], ["P1170978_x1.png", "a_HR.png"]),
        (["0801x4.png"], ["0801.png"]),
        (["one.jpg"], ["one.png"]),
        (["a.png", "a_x4.png"], ["a.png", "a_x4.png"]),  # equal stems come first
    ],
)
def test_files_pair_up_by_name(tmp_path, lows, truths):
    low, truth = fill(tmp_path / "LR", *lows), fill(tmp_path / "HR", *truths)
    (dataset,) = open_datasets([low], [truth])
    assert truths_of(dataset) == dict(zip(lows, truths, strict=True))
    assert dataset.unused_truths == 0


def test_realsr_as_made_has_both_in_one_folder(tmp_path):
    names = [f"Canon_00{i}_{role}.png" for i in (1, 2) for role in ("HR", "LR4")]
    folder = fill(tmp_path / "Canon" / "Test" / "4", *names)
    (dataset,) = open_datasets([folder], [folder])
    assert dataset.name == "Canon"
    assert truths_of(dataset) == {
        "Canon_001_LR4.png": "Canon_001_HR.png",
        "Canon_002_LR4.png": "Canon_002_HR.png",
    }


def test_a_set_without_truth_beside_one_with(tmp_path):
    low, truth = fill(tmp_path / "real" / "LR", "a.png"), fill(tmp_path / "real" / "HR", "a.png")
    without = fill(tmp_path / "RealLR200", "001.png", "002.png", "003.png")
    first, second = open_datasets([low, without], [truth, NO_TRUTH], limit=2)
    assert (first.name, second.name) == ("real", "RealLR200")
    assert [pair.name for pair in second.pairs] == ["001", "002"]
    assert all(pair.truth is None for pair in second.pairs)
    assert second.truth_folder is None


def test_truths_that_belong_to_nothing_are_counted(tmp_path):
    low = fill(tmp_path / "LR", "a.png")
    truth = fill(tmp_path / "HR", "a.png", "b.png", "c.png", "notes.txt")
    (dataset,) = open_datasets([low], [truth])
    assert dataset.unused_truths == 2


def test_names_of_data_sets_differ(tmp_path):
    folders = [fill(tmp_path / place / "set" / "test_LR", "a.png") for place in ("one", "two")]
    assert [dataset.name for dataset in open_datasets(folders, [])] == ["set", "set-2"]


def test_unicode_forms_of_one_name_are_one_name(tmp_path):
    low = fill(tmp_path / "LR", unicodedata.normalize("NFC", "é.png"))
    truth = fill(tmp_path / "HR", unicodedata.normalize("NFD", "é.png"))
    (dataset,) = open_datasets([low], [truth])
    assert dataset.pairs[0].truth.parent == truth


@pytest.mark.parametrize(
    ("lows", "truths", "said"),
    [
        (["a.png", "b.png"], ["a.png"], "no truth in .* for b.png"),
        (["a.png"], ["a.png", "a.jpg"], "have the same stem"),
        (["a.png"], ["a.png", "a_HR.png"], "more than one truth .*a.png, a_HR.png"),
        (["a.png"], ["a_GT.png", "a_HR.png"], "more than one truth"),
        (["a_LR2.png", "a_LR4.png"], ["a_HR.png"], "would share one truth"),
        (["a.png"], ["notes.txt"], "no image in this folder"),
    ],
)
def test_what_does_not_pair_up_is_named(tmp_path, lows, truths, said):
    low, truth = fill(tmp_path / "LR", *lows), fill(tmp_path / "HR", *truths)
    with pytest.raises(UsageError, match=said):
        open_datasets([low], [truth])


def test_folders_that_cannot_be(tmp_path):
    low = fill(tmp_path / "LR", "a.png")
    with pytest.raises(UsageError, match="no such folder"):
        open_datasets([tmp_path / "missing"], [])
    with pytest.raises(UsageError, match="is not a folder"):
        open_datasets([low / "a.png"], [])
    with pytest.raises(UsageError, match="1 data sets, but 2 times --truth"):
        open_datasets([low], [low, low])


def test_results_of_other_programs(tmp_path):
    low = fill(tmp_path / "photos" / "LR", "a.png", "b_LR4.png")
    (dataset,) = open_datasets([low], [])
    flat = fill(tmp_path / "flat", "a_x4.png", "b_LR4.png")
    assert {name: file.name for name, file in result_files(dataset, flat, only=True).items()} == {
        "a": "a_x4.png",
        "b_LR4": "b_LR4.png",
    }
    with pytest.raises(UsageError, match="no such folder"):
        result_files(dataset, flat, only=False)
    fill(tmp_path / "deep" / "photos", "a_out.png", "b.png")
    found = result_files(dataset, tmp_path / "deep", only=False)
    assert found["b_LR4"].name == "b.png"
    with pytest.raises(UsageError, match="no result in"):
        result_files(dataset, fill(tmp_path / "few", "a.png"), only=True)


@pytest.mark.parametrize(
    ("stem", "key"),
    [
        ("Canon_001_LR4", "Canon_001"),
        ("Canon_001_LR4_x4", "Canon_001"),
        ("a-hr", "a"),
        ("0801x4", "0801"),
        ("fox4", "fox4"),
        ("box4", "box4"),
        ("lr", "lr"),
        ("a_x8", "a_x8"),
    ],
)
def test_only_endings_that_name_a_role_are_left_off(stem, key):
    assert pair_key(stem) == key


def test_match_keeps_the_images_own_names():
    lows = {"a_LR4": Path("a_LR4.png")}
    others = {"a_HR": Path("a_HR.png")}
    assert match(lows, others, Path("l"), Path("h"), what="truth") == {"a_LR4": Path("a_HR.png")}


def test_sizes_have_to_be_exactly_four_times():
    low, high = Path("low.png"), Path("high.png")
    check_sizes([(low, (8, 6), high, (32, 24))], scale=4, what="truth")
    check_sizes([(low, (8, 6), high, (24, 32))], scale=4, what="truth")  # turned by its EXIF
    with pytest.raises(UsageError, match=r"high.png is 33 x 24 px, .* would be 32 x 24") as caught:
        check_sizes([(low, (8, 6), high, (33, 24))], scale=4, what="truth")
    assert "crop" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        check_sizes([(low, (32, 24), high, (32, 24))] * 5, scale=4, what="truth")
    assert "and 2 more" in str(caught.value)
    assert "versions 1 and 2 of RealSR" in caught.value.hint
