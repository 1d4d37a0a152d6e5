"""Inputs, outputs and their names: what a batch reads and writes, from names and folders alone."""

import os
import unicodedata

import pytest

from runtime.images.job_plan import plan_jobs
from schemas.errors import UsageError


def touch(folder, *names):
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked into")
    return paths


def plan(inputs, out=None):
    """Jobs as (source's name, output's name, problem), and the notes."""
    notes = []
    jobs = plan_jobs(inputs, None if out is None else str(out), note=notes.append)
    return [(job.source.name, job.output.name, job.problem) for job in jobs], notes


# Inputs


def test_links_to_one_file_are_inputs_of_their_own(tmp_path):
    (blob,) = touch(tmp_path, "blobs/6f1a")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).symlink_to(blob)
    (folder / "d.png").hardlink_to(blob)
    jobs, _ = plan([folder])
    assert jobs == [(f"{name}.png", f"{name}_x4.png", None) for name in "abcd"]


def test_forms_of_one_letter_are_inputs_of_their_own(tmp_path):
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    touch(tmp_path, *names)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes both for one name")
    jobs, _ = plan([tmp_path], tmp_path / "out")
    assert {name for name, _, _ in jobs} == set(names)
    # A file system that takes both for one name keeps these apart as well.
    outputs = {unicodedata.normalize("NFC", output) for _, output, _ in jobs}
    assert len(outputs) == 2
    assert all(problem is None for _, _, problem in jobs)


def test_one_path_given_in_several_ways_is_one_input(tmp_path, monkeypatch):
    (source,) = touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    jobs, _ = plan([source, tmp_path / "." / "a.png", tmp_path, source.relative_to(tmp_path)])
    assert [name for name, _, _ in jobs] == ["a.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("{a,b}.png", ["a.png", "b.png"]),
        ("**/*.png", ["a.png", "b.png", "c.png", "d.png"]),
        ("a**", ["a.png"]),
        ("de*/*/d.png", ["d.png"]),
        ("{a,deep/{c,x}}.*", ["a.png", "c.png"]),
        ("[ab].png", ["a.png", "b.png"]),
    ],
)
def test_patterns_that_the_shell_left_alone(tmp_path, pattern, found):
    touch(tmp_path, "a.png", "b.png", "deep/c.png", "deep/er/d.png", ".hidden.png")
    jobs, _ = plan([tmp_path / pattern])
    assert sorted(name for name, _, _ in jobs) == found


def test_a_name_with_signs_of_a_pattern_is_a_name(tmp_path):
    (source,) = touch(tmp_path, "{a,b}[1]*.png")
    jobs, _ = plan([source])
    assert [name for name, _, _ in jobs] == [source.name]


def test_patterns_that_match_nothing_or_too_much(tmp_path):
    touch(tmp_path, "a.png")
    for pattern in ("*.gif", "{b,c}.png", "**/x"):
        with pytest.raises(UsageError, match="no file matches"):
            plan([tmp_path / pattern])
    with pytest.raises(UsageError, match="stands for more than 1000 patterns"):
        plan([tmp_path / ("{a,b}" * 30)])


def test_results_of_other_inputs_are_left_out_with_a_word(tmp_path):
    touch(tmp_path, "a.png", "a_x4.png", "b.jpg", "b.png", "b_png_x4.png")
    jobs, notes = plan([tmp_path])
    assert [name for name, _, _ in jobs] == ["a.png", "b.jpg", "b.png"]
    assert notes == ["2 files left out: results of other inputs"]


def test_skipped_files_of_a_folder_are_said(tmp_path):
    touch(tmp_path, "a.png", "b.xyz", "c.txt")
    _, notes = plan([tmp_path])
    assert notes == [f"{tmp_path}: 2 files skipped (.txt, .xyz)"]


# Names of results


def test_only_results_that_would_share_a_name_get_longer_ones(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "b.png")
    jobs, _ = plan([tmp_path])
    assert jobs == [
        ("a.jpg", "a_jpg_x4.png", None),
        ("a.png", "a_png_x4.png", None),
        ("b.png", "b_x4.png", None),
    ]


def test_a_longer_name_is_not_another_inputs_name(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "a_jpg.png")
    jobs, _ = plan([tmp_path])
    outputs = [output for _, output, _ in jobs]
    assert len(set(outputs)) == 3
    assert all(problem is None for _, _, problem in jobs)


def test_equal_names_from_two_folders_are_told_apart_by_the_folder(tmp_path):
    first, second, third = touch(tmp_path, "one/a.png", "two/a.png", "deep/two/a.png")
    jobs, _ = plan([first, second], tmp_path / "out")
    assert [output for _, output, _ in jobs] == ["one_a_png_x4.png", "two_a_png_x4.png"]
    jobs, _ = plan([second, third], tmp_path / "out")
    outputs = [output for _, output, _ in jobs]
    assert len(set(outputs)) == 2
    assert all(output.startswith("two_a_png_") for output in outputs)
    assert plan([second, third], tmp_path / "out")[0] == jobs  # the same command goes on


def test_a_name_that_is_too_long_fails_alone(tmp_path):
    long = "a" * 250 + ".png"
    touch(tmp_path, long, "b.png")
    jobs, _ = plan([tmp_path])
    assert jobs[1] == ("b.png", "b_x4.png", None)
    assert "longer than the file system allows" in str(jobs[0][2])
    with pytest.raises(UsageError, match="longer than the file system allows"):
        plan([tmp_path / long])
    assert plan([tmp_path / long], tmp_path / "c.png")[0] == [(long, "c.png", None)]


def test_a_name_that_is_no_text_fails_alone(tmp_path):
    touch(tmp_path, os.fsdecode(b"\xff.png"), "b.png")
    jobs, _ = plan([tmp_path])
    problems = {name: problem for name, _, problem in jobs}
    assert problems["b.png"] is None
    assert "not valid Unicode" in str(problems[os.fsdecode(b"\xff.png")])


def test_a_folder_in_the_place_of_a_result_fails_alone(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "a_x4.png").mkdir()
    jobs, _ = plan([tmp_path])
    assert "is a folder" in str(jobs[0][2])
    assert jobs[1][2] is None


# What -o means


@pytest.mark.parametrize("out", ["big.bmp", "x.gif", "x.gifx", "x.GIF", "v1.5", "a.svg", "-"])
def test_what_cannot_be_written_is_refused_and_makes_no_folder(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (source,) = touch(tmp_path, "a.png")
    with pytest.raises(UsageError) as caught:
        plan([source], out)
    if out != "-":
        assert ".jpeg, .jpg, .png, .tif, .tiff, .webp" in str(caught.value)
        assert f"{out}/" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("out", ["new", "new/deep", "new.d/", "x.gif/", "photos v1.0 final"])
def test_a_folder_is_made(tmp_path, out):
    (source,) = touch(tmp_path, "a.png")
    plan([source], f"{tmp_path}/{out}")
    assert (tmp_path / out).is_dir()


def test_a_folder_that_exists_may_be_called_anything(tmp_path):
    (source,) = touch(tmp_path, "a.png")
    (tmp_path / "results.png").mkdir()
    assert plan([source], tmp_path / "results.png")[0] == [("a.png", "a_x4.png", None)]


def test_a_file_in_a_folder_that_is_not_there_is_refused(tmp_path):
    (source,) = touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="there is no folder"):
        plan([source], tmp_path / "nodir" / "x.png")
    assert not (tmp_path / "nodir").exists()


def test_an_output_that_is_an_input_is_refused(tmp_path):
    (source,) = touch(tmp_path, "a.png")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (source, tmp_path / "link" / "a.png"):
        with pytest.raises(UsageError, match="is an input"):
            plan([source], out)
