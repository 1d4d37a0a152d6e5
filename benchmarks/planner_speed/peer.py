"""SDNQ's int4 with SVD of rank 32 and Hadamard, over the same weights.

As `benchmarks.quality.peer` says, SDNQ is no dependency: ``pip install sdnq`` for its column.
"""

import os
import time

import torch
from torch import Tensor, nn

RANK = 32
SETTINGS = {"weights_dtype": "int4", "use_hadamard": True, "use_svd": True, "svd_rank": RANK}


def time_peer(weight: Tensor) -> float:
    """Processor seconds that SDNQ takes to quantize one weight [out, in].

    It is handed float32: in bfloat16 it takes seven times as long on processors that do not
    multiply it.
    """
    # Compiled kernels would be tested, and built, on import; the arithmetic is the same without.
    os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")
    from sdnq.quantizer import SDNQConfig, sdnq_quantize_layer  # noqa: PLC0415  (optional)

    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.float(), requires_grad=False)
    config = SDNQConfig(**SETTINGS)
    with torch.random.fork_rng(devices=[]):
        began = time.process_time()
        layer, _ = sdnq_quantize_layer(
            linear, config, torch_dtype=torch.float32, param_name="layer"
        )
        seconds = time.process_time() - began
    if layer.svd_up is None:
        raise RuntimeError("SDNQ found no factors")
    return seconds
