"""Held-out crops: the same every time, and no two of the same pixels."""

import math

import pytest
import torch

from benchmarks.cases import EXACT_DB, contact_sheet, held_out_cases, psnr_db
from benchmarks.photos import held_out_photos

CROP_PX = 128


def place(photo, truth):
    """Where a crop was taken from; found by its own pixels."""
    for top in range(photo.shape[0] - CROP_PX + 1):
        rows = photo[top : top + CROP_PX]
        # One pixel decides almost always; only then is the whole crop compared.
        for left in range(photo.shape[1] - CROP_PX + 1):
            if (rows[0, left] == truth[0, 0]).all() and (
                rows[:, left : left + CROP_PX] == truth
            ).all():
                return top, left
    raise AssertionError("the crop is not in the photo")


def test_a_smaller_run_uses_the_first_crops_of_a_larger_one():
    few, many = held_out_cases(2, CROP_PX, 1), held_out_cases(5, CROP_PX, 1)
    assert [c.name for c in many] == [
        "astronaut-0",
        "chelsea-0",
        "coffee-0",
        "astronaut-1",
        "chelsea-1",
    ]
    for a, b in zip(few, many, strict=False):
        assert a.name == b.name
        assert torch.equal(a.truth, b.truth)
        assert torch.equal(a.small, b.small)
        assert a.truth.shape == (1, 3, CROP_PX, CROP_PX)
        assert a.small.shape == (1, 3, CROP_PX // 4, CROP_PX // 4)


def test_no_two_crops_share_a_pixel():
    photo = held_out_photos()["chelsea"]
    crops = [c for c in held_out_cases(17, CROP_PX, 1) if c.name.startswith("chelsea")]
    places = [place(photo, c.truth[0].permute(1, 2, 0).numpy()) for c in crops]
    assert len(places) == 6  # all that fit
    for i, (top, left) in enumerate(places):
        for other_top, other_left in places[:i]:
            assert abs(top - other_top) >= CROP_PX or abs(left - other_left) >= CROP_PX


def test_too_many_crops_are_refused():
    with pytest.raises(ValueError, match="hold 34"):
        held_out_cases(35, CROP_PX, 1)


def test_psnr_of_a_known_difference_and_of_none():
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert psnr_db(picture, picture + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr_db(picture, picture) == EXACT_DB
    assert math.isfinite(EXACT_DB)


def test_contact_sheet_has_the_pictures_where_the_labels_are():
    left, right = torch.zeros(1, 3, 10, 10), torch.full((1, 3, 10, 10), 0.5)
    sheet = contact_sheet([[left, right]], ["left", "right"])
    assert sheet.size == (28, 30)
    assert sheet.getpixel((5, 20)) == (0, 0, 0)
    assert sheet.getpixel((19, 20)) == (128, 128, 128)
