"""Relative error of latents by octave."""

import math

import pytest
import torch

from benchmarks.cases import EXACT_DB
from benchmarks.quality.intervals import relative_error_db
from benchmarks.quality.spectrum import OCTAVES, octave_errors_db


def wave(cycles, size=32):
    """A wave of so many cycles over the width, [1, 2, size, size]."""
    x = torch.arange(size) * 2 * math.pi * cycles / size
    return torch.cos(x).expand(1, 2, size, size).clone()


@pytest.mark.parametrize(("octave", "cycles"), [("fine", 12), ("middle", 6), ("coarse", 2)])
def test_an_error_shows_in_its_own_octave(octave, cycles):
    reference = wave(12) + wave(6) + wave(2)
    found = octave_errors_db(reference, reference + 0.1 * wave(cycles))
    assert found[f"octave_{octave}_db"] == pytest.approx(20, abs=1e-4)
    for other in set(OCTAVES) - {octave}:
        assert found[f"octave_{other}_db"] > 90


def test_white_errors_on_white_latents_are_the_relative_error_everywhere():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(1, 16, 64, 64, generator=generator)
    other = reference + 0.03 * torch.randn(1, 16, 64, 64, generator=generator)
    whole = relative_error_db(reference, other)
    for value in octave_errors_db(reference, other).values():
        assert value == pytest.approx(whole, abs=0.3)


def test_equal_latents_and_octaves_without_signal():
    flat = torch.ones(1, 1, 8, 8)
    assert octave_errors_db(flat, flat) == {"octave_coarse_db": EXACT_DB}
