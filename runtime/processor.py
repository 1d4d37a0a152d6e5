"""What the processor can do, as far as torch tells."""

from collections.abc import Mapping

import torch


def processor_features() -> Mapping[str, object]:
    """Name of a feature, such as ``amx_bf16``, to whether it is there; some have other values.

    Empty where this torch does not tell.
    """
    features: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return features


def multiplies_bfloat16() -> bool:
    """Whether there are instructions for products of bfloat16 (AVX-512, AMX)."""
    features = processor_features()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16"))
