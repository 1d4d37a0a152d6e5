"""Where tests of the Triton kernels run: on a CUDA device, or in Triton's interpreter without one.

Triton decides for every function when it is decorated. What has been imported before, of Triton's
own library and of ours, is decorated once more; what comes later is interpreted from the start.
"""

import importlib
import os
import sys

import pytest
import torch

triton = pytest.importorskip("triton")


_KERNELS = "runtime.backends.triton."


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    ours = [module for name, module in sys.modules.items() if name.startswith(_KERNELS)]
    for module in (triton.language.standard, triton.language.math, triton.language, triton, *ours):
        for name, value in list(vars(module).items()):
            if isinstance(value, triton.runtime.JITFunction):
                setattr(module, name, triton.jit(value.fn))


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    _interpret()
launch = importlib.import_module("runtime.backends.triton.launch")


def full_width(*values: object) -> object:
    """A case in the network's own sizes: too large for the interpreter, so it needs a device."""
    return pytest.param(*values, marks=pytest.mark.gpu)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected; no number where one is not."""
    expected = expected.double()
    return float((found.to(expected) - expected).norm() / expected.norm())


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers, the same on every device."""
    return torch.Generator().manual_seed(seed)
