"""Products of 16-bit tiles, added in float32."""

# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def dot16(a: tl.tensor, b: tl.tensor, total: tl.tensor, native: tl.constexpr) -> tl.tensor:
    """``total + a @ b``, on tensor cores where the operands are 16-bit.

    Triton's interpreter (not ``native``) multiplies the bit patterns of bfloat16 as if they were
    integers, so it gets float32 operands, whose products are the very same.
    """
    if native:
        return tl.dot(a, b, total, input_precision="ieee")
    return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
