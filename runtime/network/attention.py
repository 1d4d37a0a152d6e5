"""Softmax attention, and its reference with quantized probabilities.

With ``probability_bits`` b a softmax row p (one query of one head) becomes ``codes * step``:

    step = max(p) / (2^b - 1),    codes = round(p / step) = 0 ... 2^b - 1

unsigned and with zero among the levels, because probabilities are not negative and most are next to
nothing. The step follows from the row itself, as a token's does. A fixed step of 1/255 would not
do: among 2381 keys alike every probability is 1/2381, a tenth of such a step, and all would become
zero. With ``e = exp(score - largest score)``, which is 1 at the row's largest, the codes are
``round((2^b - 1) e)``: whole numbers that bfloat16 holds up to 8 bits, so a kernel can multiply
them with the values as they are and divide by ``(2^b - 1) sum(e)`` in the end. Here everything is
float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.backends.cpu.attention import attend, attention_kernels
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import UsageError

LARGEST_SCORES = 2**24
"""Scores in memory at once, 64 MiB in float32; queries are taken in parts."""


class SoftmaxAttention(nn.Module):
    """``softmax(Q Kᵀ / sqrt(d)) V``.

    Attributes:
        probability_bits: of the softmax's results where activations are quantized at all;
            `UNQUANTIZED` leaves them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability_bits = UNQUANTIZED

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, quantized: bool) -> Tensor:
        """Attend with ``q`` [B, heads, n, d] over ``k``, ``v`` [B, heads, m, d] -> like ``q``.

        Args:
            q: queries.
            k: keys.
            v: values.
            quantized: whether activations are; probabilities are no exception.
        """
        if not quantized or self.probability_bits == UNQUANTIZED:
            kernels = attention_kernels(q, k, v)
            if kernels is not None:
                return attend(kernels, q, k, v)
            return F.scaled_dot_product_attention(q, k, v)
        return quantized_attention(q, k, v, self.probability_bits)


def quantized_attention(q: Tensor, k: Tensor, v: Tensor, probability_bits: int) -> Tensor:
    """Attention with probabilities of so many bits; shapes as in `SoftmaxAttention`.

    Computed in float32, or in float64 for float64; waits for the device nowhere.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    keys, values = k.to(wide).transpose(-1, -2), v.to(wide)
    highest_code = 2**probability_bits - 1
    batch, heads, _, size = q.shape
    at_once = max(1, LARGEST_SCORES // (batch * heads * k.shape[2]))
    parts = []
    for queries in q.split(at_once, dim=2):
        scores = (queries.to(wide) / math.sqrt(size)) @ keys
        weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()  # 1 at the row's largest
        total = weights.sum(-1, keepdim=True)
        codes = weights.mul_(highest_code).round_()
        parts.append((codes @ values) / (highest_code * total))
    return torch.cat(parts, dim=2).to(v.dtype)


def set_softmax_bits(network: nn.Module, bits: int) -> None:
    """Give the probabilities of every attention of ``network`` so many bits.

    Raises:
        UsageError: probabilities are to be quantized, and there is no attention that can.
    """
    layers = [module for module in network.modules() if isinstance(module, SoftmaxAttention)]
    if bits != UNQUANTIZED and not layers:
        raise UsageError(
            f"softmax at {bits} bits: this network has no attention whose probabilities can be"
            " quantized"
        )
    for layer in layers:
        layer.probability_bits = bits
