"""The distance of features as tables show it; other metrics are tested where they come from."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.demo_quality.metrics import feature_difference
from training.features import feature_distances


def test_features_tell_blur_and_equal_pictures_do_not_differ():
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = F.avg_pool2d(picture, 5, stride=1, padding=2)
    slightly = F.avg_pool2d(picture, 3, stride=1, padding=1)
    assert feature_difference(picture, picture) == 0
    assert 0 < feature_difference(slightly, picture) < feature_difference(blurred, picture)
    parts = feature_distances(blurred * 2 - 1, picture * 2 - 1)
    assert feature_difference(blurred, picture) == pytest.approx(float(sum(parts)))
