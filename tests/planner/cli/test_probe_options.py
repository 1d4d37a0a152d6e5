"""What a probe takes unless told otherwise, of generated pictures and of photos."""

from pathlib import Path

import pytest

from planner.cli.build_options import PassOptions
from planner.cli.probe import ProbeOptions


@pytest.mark.parametrize("options", [PassOptions(), ProbeOptions()])
def test_photos_are_many_with_one_direction_each(options):
    ask = options.probe if isinstance(options, PassOptions) else options.settings
    generated, photos = ask(None), ask(Path("photos"))
    assert (generated.pictures, generated.cotangents) == (2, 4)
    assert (photos.pictures, photos.cotangents) == (32, 1)


def test_fewer_images_bound_both():
    assert PassOptions(calib_images=1).probe(None).pictures == 1
    assert PassOptions(calib_images=5).probe(None).pictures == 2
    assert PassOptions(calib_images=5).probe(Path("photos")).pictures == 5
    asked = ProbeOptions(pictures=3, cotangents=2).settings(Path("photos"))
    assert (asked.pictures, asked.cotangents) == (3, 2)
