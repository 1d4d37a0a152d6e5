"""Nothing from a file reaches the terminal raw: escapes, overrides, markup, odd bytes."""

import json
import os

import pytest
import torch

from artifacts.cli.output import print_json, say, tell
from artifacts.cli.terminal import Terminal
from schemas.error_text import describe_error, one_line, printable
from schemas.errors import PackError, UsageError
from tests.artifacts.make_checkpoint import random_state, write_file, write_folder
from tests.artifacts.make_pack import make_pack
from tests.artifacts.tamper import edit_manifest
from tests.faults.pack_setup import LAYER
from tests.planner.run_qplan import run_qplan

EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\x7f[/b]:smile:"
RAW = set("\x1b\x07\r\x9b\u202e\x7f")
RANKS = ("--global-rank", 2, "--local-rank", 2)


def assert_clean(result):
    for text in (result.stdout, result.stderr):
        assert not RAW & set(text), text
        assert all(c == "\n" or c.isprintable() for c in text)


@pytest.fixture
def evil(pack):
    def edit(manifest):
        manifest["recipe"]["name"] = EVIL
        manifest["recipe"]["settings"] |= {EVIL: EVIL, "other": [EVIL]}
        manifest["producer"] = {"name": EVIL, "version": EVIL}
        manifest["layers"][LAYER]["note"] = EVIL

    edit_manifest(pack, edit)
    return pack


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_inspect_diff_and_verify_of_a_pack(evil, tmp_path, options):
    make_pack(tmp_path / "plain.qpack")
    shown = ""
    for command in (
        ("inspect", evil),
        ("verify", evil),
        ("diff", evil, tmp_path / "plain.qpack", "--layer", "."),
        ("diff", tmp_path / "plain.qpack", evil),
    ):
        result = run_qplan(*command, *options)
        assert result.exit_code == 0, result.output
        assert_clean(result)
        shown += result.stdout
        if options:
            json.loads(result.stdout)
    assert "owned" in shown
    assert ("\\u001b]0;" if options else "\\x1b]0;") in shown


def test_json_holds_what_the_file_holds(evil):
    result = run_qplan("inspect", evil, "--json")
    assert_clean(result)
    assert json.loads(result.stdout)["recipe"] == EVIL


def test_keys_of_a_manifest_in_an_error(pack):
    edit_manifest(pack, lambda m: m.update({EVIL: 1}))
    result = run_qplan("verify", pack)
    assert result.exit_code == 3
    assert_clean(result)
    assert "\\x1b]0;owned" in result.stderr


@pytest.mark.parametrize("command", ["build", "estimate"])
def test_names_of_tensors_in_errors_and_notes(tmp_path, command):
    state = random_state() | {EVIL: torch.tensor(1.0)}
    result = run_qplan(command, write_file(tmp_path / "m.safetensors", state))
    assert result.exit_code == 0, result.output
    assert_clean(result)
    assert "\\x1b]0;owned" in result.stderr
    state[EVIL] = torch.ones(3)
    result = run_qplan(command, write_file(tmp_path / "m.safetensors", state))
    assert result.exit_code == 3
    assert_clean(result)


def test_keys_of_a_configuration(tmp_path):
    path = write_folder(tmp_path / "m", random_state())
    file = path / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {EVIL: 1}))
    result = run_qplan("estimate", path)
    assert result.exit_code == 0
    assert_clean(result)
    assert "\\x1b]0;owned" in result.stderr


def test_a_path_with_escapes_and_bytes_that_are_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff\x1b[31m\nb.safetensors")
    write_file(tmp_path / "m.safetensors", random_state()).rename(path)
    for options in ((), ("--json",)):
        result = run_qplan("build", path, *RANKS, "--force", *options)
        assert result.exit_code == 0, result.output
        text = result.stdout + result.stderr
        assert "\x1b" not in text
    result = run_qplan("verify", tmp_path / os.fsdecode(b"gone\xff\x1b[31m"))
    assert result.exit_code == 3
    assert_clean(result)
    assert "gone\\xff\\x1b[31m" in result.stderr


def test_a_traceback_is_printable_too(pack):
    edit_manifest(pack, lambda m: m.update({EVIL: 1}))
    result = run_qplan("verify", pack, "--debug")
    assert "Traceback" in result.stderr
    assert_clean(result)


# The one place


def test_what_is_printable_stays():
    for text in ("", "plain", "é 漢字 → ½ 🙂", "C:\\folder"):
        assert printable(text) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc", "\\u202eabc"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(raw, shown):
    assert printable(raw) == shown


def test_errors_and_hints():
    _, lines = describe_error(PackError(EVIL, hint=EVIL))
    assert len(lines) == 2
    assert not RAW & set("".join(lines))
    assert not RAW & set(one_line(UsageError(EVIL)))
    assert not RAW & set("".join(describe_error(KeyboardInterrupt(EVIL))[1]))


def test_every_way_to_print(capsys):
    say(f"{EVIL}\nsecond line")
    tell(EVIL)
    print_json({EVIL: [EVIL, "é"]})
    for options in ({}, {"force_terminal": True, "color_system": None}):
        Terminal(width=300, highlight=False, **options).print(EVIL)
    found = capsys.readouterr()
    assert not RAW & set(found.out + found.err)
    assert "second line" in found.out
    assert "[/b]:smile:" in found.out
    assert "é" in found.out
