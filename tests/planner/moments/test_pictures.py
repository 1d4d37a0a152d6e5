"""Second moments are taken from worn pictures, or from the probe's own photos."""

import pytest
import torch

from planner.moments.pictures import PER_GENERATED, moment_pictures, moment_settings
from planner.probe.pictures import worn_leaves
from planner.probe.run import ProbeSettings, probe_pictures
from tests.planner.calibration_setup import CROP_PX, make_setup


@pytest.mark.parametrize("pictures", [1, 2])
def test_generated_ones_are_worn_and_more_than_the_probes(pictures):
    settings = moment_settings(ProbeSettings(pictures=pictures, seed=3))
    found, records = moment_pictures(settings, 8)
    assert records == ()
    assert len(found) == PER_GENERATED * pictures
    for index, picture in enumerate(found):
        assert torch.equal(picture, worn_leaves(8, 8, 3 + index))


def test_photos_are_the_probes(tmp_path):
    probe = ProbeSettings(make_setup(tmp_path).images, 3)
    settings = moment_settings(probe)
    assert settings == probe
    (found, records), (probed, same) = (
        moment_pictures(settings, CROP_PX),
        probe_pictures(probe, CROP_PX),
    )
    assert records == same
    assert all(map(torch.equal, found, probed))
