"""What users call devices, number formats and backends.

`runtime.device` turns the first two into torch's own, `runtime.backends` has the third.

Nothing heavy is imported here, so that a mistyped name is answered at once.
"""

from schemas.choices import check_choice
from schemas.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MEMORY = ("auto", "low", "fast")
"""Whether quantized weights stay packed on a GPU: where memory is short, always, never."""


BACKEND_NAMES = ("cpu", "triton", "reference", "triton-packed")


def check_names(
    device: str, dtype: str = "auto", backend: str = "auto", memory: str = "auto"
) -> None:
    """Make sure that there are such a device, number format, backend and choice of memory.

    Raises:
        UsageError: there is none of that name.
    """
    if backend not in ("auto", *BACKEND_NAMES):
        raise UsageError(
            f"there is no backend {backend!r}", hint=f"one of: auto, {', '.join(BACKEND_NAMES)}"
        )
    check_choice("--device", device, DEVICES)
    check_choice("--dtype", dtype, DTYPES)
    check_choice("--memory", memory, MEMORY)
