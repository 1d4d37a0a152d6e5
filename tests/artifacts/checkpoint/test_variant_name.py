"""The variant that a checkpoint's name says: its tensors cannot."""

import shutil
from pathlib import Path

import pytest

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.checkpoint.variant_name import named_variant
from artifacts.dit4sr.family import FAMILY
from artifacts.pack.reader import open_pack
from tests.artifacts.make_checkpoint import random_state, write_file, write_folder
from tests.planner.run_qplan import run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.mark.parametrize(
    ("path", "variant"),
    [
        ("dit4sr_r1", "r1"),
        ("dit4sr_r1/transformer", "r1"),
        ("dit4sr_f/transformer/diffusion_pytorch_model.safetensors", "f"),
        ("dit4sr_f/transformer/diffusion_pytorch_model.fp16.safetensors", "f"),
        ("dit4sr_f/transformer/diffusion_pytorch_model-00001-of-00002.safetensors", "f"),
        ("DiT4SR-R1-bf16.safetensors", "r1"),
        ("DiT4SR.q.safetensors", "q"),
        ("r1", "r1"),
        ("dit4sr_r1/checkpoint-5000", "r1"),
        ("dit4sr_r1/checkpoint-5000/transformer/model.safetensors", "r1"),
        ("dit4sr_r1_from_q", None),
        ("dit4sr", None),
        ("dit4sr_r10", None),
        ("far", None),
        ("home/q/dit4sr", None),
        ("home/q/photos/dit4sr.safetensors", None),
        ("models--a--b/snapshots/0f3q/dit4sr_q", "q"),
    ],
)
def test_names(path, variant):
    found = named_variant(Path("/models") / path, FAMILY)
    assert (None if found is None else found[0]) == variant


def test_a_build_takes_the_variant_from_the_folder_and_says_so(tmp_path):
    path = write_folder(tmp_path / "dit4sr_r1", random_state())
    result = run_qplan("build", path, *RANKS)
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr
    assert "taken as variant r1, by its name 'dit4sr_r1'" in result.stderr
    pack = open_pack(tmp_path / "dit4sr_r1-w4a4.qpack")
    assert pack.variant == "r1"
    assert not any(".to_k_control." in name for name in pack.manifest.omitted)


def test_the_option_wins_over_the_name(tmp_path):
    path = write_folder(tmp_path / "dit4sr_r1", random_state())
    result = run_qplan("build", path, *RANKS, "--variant", "f")
    assert result.exit_code == 0, result.output
    assert "variant" not in result.stderr
    assert open_pack(tmp_path / "dit4sr_r1-w4a4.qpack").variant == "f"


def test_estimates_and_json_know_it_too(tmp_path):
    file = write_file(tmp_path / "dit4sr_f.safetensors", random_state())
    assert "taken as variant f" in run_qplan("estimate", file).stderr
    assert open_checkpoint(file).architecture().variant == "f"
    renamed = tmp_path / "m.safetensors"
    shutil.move(file, renamed)
    assert open_checkpoint(renamed).architecture().variant == "q"
    assert open_checkpoint(renamed).notes(None) == []
