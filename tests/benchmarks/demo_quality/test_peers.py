"""The peers and BRISQUE themselves, where they are installed."""

import importlib.util

import pytest
import torch

from benchmarks.demo_quality.dat_light import MODULES as DAT_MODULES
from benchmarks.demo_quality.dat_light import dat_light
from benchmarks.demo_quality.metrics import open_brisque
from benchmarks.demo_quality.realesrgan import MODULES as ESRGAN_MODULES
from benchmarks.demo_quality.realesrgan import real_esrgan

pytestmark = pytest.mark.filterwarnings("default")  # libraries of others


def ramp(side):
    """A picture that grows from dark to bright, reddish."""
    across = torch.linspace(0.2, 0.8, side).expand(1, 1, side, side)
    return torch.cat([across, 0.5 * across, 0.4 * across], dim=1)


@pytest.mark.parametrize(
    ("make", "modules"), [(real_esrgan, ESRGAN_MODULES), (dat_light, DAT_MODULES)]
)
def test_a_peer_enlarges_four_times_and_keeps_the_colours(make, modules):
    if any(importlib.util.find_spec(module) is None for module in modules):
        pytest.skip(f"{' or '.join(modules.values())} is not installed")
    small = ramp(32)
    large = make().open()(small, 0)
    assert large.shape == (1, 3, 128, 128)
    assert large.dtype == torch.float32
    assert torch.allclose(large.mean((2, 3)), small.mean((2, 3)), atol=0.03)
    assert large[..., 100].mean() > large[..., 20].mean() + 0.1


def test_brisque_prefers_a_picture_without_noise():
    for module in ("brisque", "cv2", "libsvm"):
        pytest.importorskip(module)
    data = pytest.importorskip("skimage.data")
    clean = torch.from_numpy(data.chelsea()[:192, :192] / 255.0).permute(2, 0, 1)[None].float()
    noise = 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    score = open_brisque()
    assert score(clean) < score((clean + noise).clamp(0, 1))
