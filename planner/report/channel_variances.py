"""Variances of a pack's weights, by layer, over its output channels (the paper's Fig. 5).

Every layer is decoded as the format means it, so these are the weights that the pack runs with,
rotated as they are stored. A layer in 16 bits is as it is: its rows' lengths do not depend on the
rotation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from artifacts.pack.reader import Pack
from planner.build.progress import Progress, Silent

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def channel_variances(
    pack: Pack, names: Sequence[str], progress: Progress | None = None
) -> dict[str, list[float]]:
    """Layer -> `QUANTILES` over output channels of the variance of the weight's row.

    One layer is in memory at a time.

    Raises:
        PackError: a file changed since the pack was opened.
    """
    found = {}
    for name in (progress or Silent()).track(names, "decode"):
        variances = _weight(pack, name).var(dim=1, unbiased=False)
        quantiles = torch.quantile(variances, torch.tensor(QUANTILES))
        found[name] = [float(value) for value in quantiles]
    return found


def _weight(pack: Pack, name: str) -> Tensor:
    if pack.manifest.layers[name].is_quantized:
        return pack.layer(name).decode_rotated(torch.float32)
    return pack.tensor(f"{name}.weight").float()
