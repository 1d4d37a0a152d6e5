"""The compiled kernels of `native/`: which variant this processor runs, and how they are called.

A variant is the same C++ compiled for one family of instructions, a library of its own
(`setup.py`). It is taken where it was built, where the processor has the instructions, and where
its integer sums prove exact. ``QDIT4SR_CPU_KERNELS`` names a lesser one, or ``onednn`` for none.

Libraries are loaded after torch, whose OpenMP library they then share: two pools of threads on one
set of cores would wait for each other.
"""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from runtime.backends.cpu.arguments import (
    AttentionArguments,
    DownArguments,
    GemmArguments,
    PrepareArguments,
    ReorderArguments,
)
from runtime.processor import processor_features
from schemas.errors import UsageError

VARIANTS = ("avx512_bf16", "avx512_vnni", "avx_vnni", "avx2")
"""The fastest first."""
WITHOUT = "onednn"
SWITCH = "QDIT4SR_CPU_KERNELS"
NOT_BUILT = "not built"
_FOLDER = Path(__file__).parent / "native"


@dataclass(frozen=True, eq=False)
class Kernels:
    """One variant, loaded.

    Attributes:
        variant: its name.
        panel: output channels that its product takes at once.
    """

    variant: str
    panel: int
    library: ctypes.CDLL

    def prepare(self, arguments: PrepareArguments) -> int:
        """Rotate and quantize rows; returns a row whose scale is not finite, or -1."""
        return int(self.library.qdit4sr_prepare(ctypes.byref(arguments)))

    def reorder(self, arguments: ReorderArguments) -> None:
        """Bring a pack's codes into the product's order."""
        self.library.qdit4sr_reorder(ctypes.byref(arguments))

    def gemm(self, arguments: GemmArguments) -> None:
        """Multiply codes, and finish the layer."""
        self.library.qdit4sr_gemm(ctypes.byref(arguments))

    def down(self, arguments: DownArguments) -> None:
        """Multiply rotated tokens with the factors' ``down``."""
        self.library.qdit4sr_down(ctypes.byref(arguments))

    def attention(self, arguments: AttentionArguments) -> None:
        """Softmax attention."""
        self.library.qdit4sr_attention(ctypes.byref(arguments))


@dataclass(frozen=True)
class Choice:
    """The kernels in use, or why there are none.

    Attributes:
        kernels: None where the backend works with torch's operations.
        reasons: variant -> why it is not taken, for all that were passed over.
        preparing: what prepares inputs all the same, for products that are oneDNN's.
    """

    kernels: Kernels | None
    reasons: Mapping[str, str]
    preparing: Kernels | None = None

    def __str__(self) -> str:
        if self.kernels is not None:
            return f"compiled kernels {self.kernels.variant}"
        reasons = ", ".join(f"{n} {why}" for n, why in self.reasons.items())
        if self.preparing is not None:
            return (
                f"products {reasons}; inputs prepared by compiled kernels {self.preparing.variant}"
            )
        return f"no compiled kernels: {reasons}"


def native_kernels() -> Choice:
    """The kernels that this process uses.

    Raises:
        UsageError: the switch names no variant, or one that cannot run here.
    """
    return _chosen(os.environ.get(SWITCH, "auto"))


@lru_cache(maxsize=8)
def _chosen(name: str) -> Choice:
    if name == WITHOUT:
        return Choice(None, {"all": f"left out by {SWITCH}={WITHOUT}"})
    if name in VARIANTS:
        found = load_variant(name)
        if isinstance(found, str):
            raise UsageError(
                f"{SWITCH}={name}: {found}", hint=f"unset {SWITCH}, or choose another variant"
            )
        return Choice(found, {})
    if name != "auto":
        allowed = ", ".join(("auto", *VARIANTS, WITHOUT))
        raise UsageError(f"{SWITCH}={name}: there is no such variant; it is one of {allowed}")
    if processor_features().get("amx_int8"):
        return Choice(None, {"all": "left to oneDNN, which uses AMX"}, _fastest()[0])
    return Choice(*_fastest())


def _fastest() -> tuple[Kernels | None, dict[str, str]]:
    """The first variant that runs here, and why those before it do not."""
    reasons: dict[str, str] = {}
    for variant in VARIANTS:
        found = load_variant(variant)
        if not isinstance(found, str):
            return found, reasons
        reasons[variant] = found
    return None, reasons


def kernel_report() -> list[str]:
    """What has become of every variant here, a line each, the fastest first.

    Raises:
        UsageError: as `native_kernels`.
    """
    choice = native_kernels()
    lines = []
    for variant in VARIANTS:
        found = load_variant(variant)
        if isinstance(found, str):
            state = found
        elif found is choice.kernels:
            state = "in use"
        elif found is choice.preparing:
            state = "prepares inputs; products are left to oneDNN, which uses AMX"
        else:
            state = choice.reasons.get("all") or f"runs here too; {SWITCH}={variant} takes it"
        lines.append(f"{variant}: {state}")
    if all(load_variant(variant) == NOT_BUILT for variant in VARIANTS):
        lines.append("install this program again with a C++17 compiler to build them")
    return lines


@lru_cache(maxsize=len(VARIANTS))
def load_variant(variant: str) -> Kernels | str:
    """Load one of `VARIANTS` and check it; why it cannot be used otherwise."""
    path = _FOLDER / f"kernels_{variant}.so"
    if not path.exists():
        return NOT_BUILT
    try:
        library = ctypes.CDLL(str(path))
        if not library.qdit4sr_runs_here():
            return "needs other instructions"
        kernels = Kernels(variant, int(library.qdit4sr_panel()), library)
        library.qdit4sr_prepare.restype = ctypes.c_int64
        library.qdit4sr_reorder.restype = None
    except (OSError, AttributeError) as cause:  # another system's library, or an older one
        return f"does not load ({cause})"
    from runtime.backends.cpu.kernel_check import inexact_pair  # noqa: PLC0415

    pair = inexact_pair(kernels)
    return f"adds wrongly at {pair}" if pair else kernels


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers lie, for a kernel; None for no tensor."""
    return None if tensor is None else tensor.data_ptr()


def threads() -> int:
    """How many threads a kernel may use."""
    return torch.get_num_threads()
