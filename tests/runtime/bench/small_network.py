"""A network a thousandth of DiT4SR's size, and what to measure on it."""

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from runtime.backends import BACKENDS
from runtime.backends.cpu.int8_weight import inexact_reason
from runtime.bench.run import Settings
from runtime.bench.workload import (
    BitWidths,
    Ranks,
    Workload,
)
from runtime.network.blocks import Streams

CPU = torch.device("cpu")
BITS, RANKS = BitWidths(4, 4), Ranks(4, 2)

needs_onednn = pytest.mark.skipif(inexact_reason() is not None, reason=str(inexact_reason()))
needs_cpu_backend = pytest.mark.skipif(
    BACKENDS["cpu"].missing(CPU) is not None, reason=str(BACKENDS["cpu"].missing(CPU))
)


def tiny_config(*, layers=3, dual=(0,), heads=2, head=24):
    return TransformerConfig(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=head,
        joint_attention_dim=24,
        caption_projection_dim=heads * head,
        pooled_projection_dim=20,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
    )


TINY = tiny_config()
STREAMS = Streams(grid=(2, 3), text_tokens=5, batch=2)


def tiny_settings(**changes):
    workload = Workload((64,), 1, BITS, RANKS, text_tokens=5)
    standard = {"rounds": 2, "compiling": False, "peers": False, "layers": False}
    return Settings(workload=workload, device=CPU, **(standard | changes))
