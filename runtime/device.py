"""Where a network computes, and in which number format."""

import logging

import torch

from runtime.backends import find_backend
from runtime.device_names import check_names
from runtime.processor import multiplies_bfloat16
from schemas.errors import UsageError

logger = logging.getLogger(__name__)

MPS_UNTESTED = "device mps was never tried: the reference backend computes there, if torch can"


def device_and_dtype(
    device: str, dtype: str, *, backend: str | None = None
) -> tuple[torch.device, torch.dtype]:
    """Choose where and how to compute.

    A CUDA GPU where there is one, and bfloat16 there; Apple's where it is asked for, in float32.
    The CPU computes in float32, but in bfloat16 where that is around the integer products of the
    backend ``cpu`` and the processor multiplies it.

    Args:
        device: one of `runtime.device_names.DEVICES`.
        dtype: one of `runtime.device_names.DTYPES`.
        backend: of the quantized layers; None for a network without such.

    Raises:
        UsageError: there is no such device or number format, a GPU is asked for and there is none,
            or the backend cannot run there.
    """
    check_names(device, dtype)
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UsageError(
            "--device cuda: torch sees no GPU here", hint="--device cpu works anywhere"
        )
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError(
                "--device mps: torch sees no Apple GPU here", hint="--device cpu works anywhere"
            )
        logger.warning("%s", MPS_UNTESTED)
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    chosen = torch.device(device)
    if dtype != "auto":
        explicit: torch.dtype = getattr(torch, dtype)
        return chosen, explicit
    if chosen.type == "cuda":
        return chosen, torch.bfloat16
    narrow = (
        backend is not None
        and multiplies_bfloat16()
        and find_backend(backend, chosen).name == "cpu"
    )
    return chosen, torch.bfloat16 if narrow else torch.float32
