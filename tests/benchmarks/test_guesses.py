"""What a network points at, step by step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.guesses import Guessing, draw, guesses, measured
from runtime.load import load_full_precision
from runtime.upscale import upscale
from training.evaluation_set import Case

MODEL = Path("artifacts/demo/dit4sr-mini")


def test_a_guess_lies_where_the_velocity_points():
    """Half noise: a network that knows image and noise points at the image."""
    image, noise = torch.rand(2, 1, 16, 4, 4)
    watched = Guessing(lambda *_arguments: noise - image)
    none = torch.zeros(1)
    watched((image + noise) / 2, image, none, none, torch.tensor([500.0]), None)
    ((sigma, guess),) = watched.guesses
    assert sigma == 0.5
    torch.testing.assert_close(guess, image)


@pytest.fixture(scope="module")
def found():
    pipeline = load_full_precision(MODEL, device=torch.device("cpu"), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 3, 128, 128, generator=generator)
    case = Case("noise", truth, truth[..., ::4, ::4].contiguous())
    return pipeline, case, guesses(pipeline, case, 0)


def test_there_is_one_for_every_step_and_the_result_comes_last(found):
    pipeline, case, of_steps = found
    sigmas = [sigma for sigma, _ in of_steps]
    assert len(sigmas) == pipeline.sampling.steps + 1
    assert sigmas[0] == 1
    assert sigmas == sorted(sigmas, reverse=True)
    wanted = upscale(pipeline, case.small, pipeline.sampling).clamp(0, 1)
    torch.testing.assert_close(of_steps[-1][1], wanted)
    # The step before begins with next to no noise, so that its guess is nearly the result.
    torch.testing.assert_close(of_steps[-2][1], wanted, atol=0.05, rtol=0)
    assert not torch.allclose(of_steps[0][1], wanted, atol=0.05)


def test_means_are_of_the_pictures(found):
    _, case, _ = found
    brighter = measured([case.truth + 0.01], [case])
    assert brighter["psnr_db"] == pytest.approx(40, abs=0.01)
    assert brighter["ragged_edges_db"] == pytest.approx(0, abs=1e-4)
    steeper = measured([0.5 + 2 * (case.truth - 0.5)], [case])
    assert steeper["ragged_edges_db"] > 3


@pytest.mark.parametrize("steps", [2, 8])
def test_a_sheet_has_a_row_for_every_crop(found, steps, tmp_path):
    pipeline, case, _ = found
    sampling = pipeline.sampling.override(patch_size=pipeline.patch_size, steps=steps)
    draw(replace(pipeline, sampling=sampling), [case, case], tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size == (8 * (128 + 4), 16 + 2 * (128 + 4))
