"""What users call devices and number formats; `runtime.device` turns the names into torch's own.

Nothing heavy is imported here, so that a mistyped name is answered at once.
"""

from schemas.choices import check_choice

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_names(device: str, dtype: str = "auto") -> None:
    """Make sure that there are such a device and such a number format, be they here or not.

    Raises:
        UsageError: there is none of that name.
    """
    check_choice("--device", device, DEVICES)
    check_choice("--dtype", dtype, DTYPES)
