"""How many steps a token's scale is long: from `artifacts.codec.gaussian_quantizer`, as constants.

They stand here a second time because that module needs packages which a machine that only tries the
kernels may lack; a test holds the two equal, bit for bit.
"""

from typing import Literal

ScaleRule = Literal["gaussian", "absmax"]

GAUSSIAN_STEPS = (
    1.5957691216057306,
    0.9956866859435061,
    0.5860194414434867,
    0.3352006121999722,
    0.1881387902799173,
    0.10406300944201405,
    0.056867672382356474,
    0.03076238758232479,
)
"""Step of the best uniform quantizer of N(0, 1) by bits, from 1."""


def step_for(rule: ScaleRule, bits: int) -> float:
    """A token's scale over its root mean square (``gaussian``) or largest magnitude (``absmax``).

    Raises:
        ValueError: ``bits`` is not within 1 ... 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"a quantizer of {bits} bits; it must be 1 to 8")
    return GAUSSIAN_STEPS[bits - 1] if rule == "gaussian" else 2 / (2**bits - 1)
