"""Softmax attention on the compiled kernels.

Float32 inside, whatever goes in; the variant for processors that multiply bfloat16 (AVX-512) takes
bfloat16 as it is. Faster than torch's wherever the kernels compute at all; with AMX they do not.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from runtime.backends.cpu.arguments import AttentionArguments, AttentionTensor
from runtime.backends.cpu.kernels import Kernels, address, native_kernels, threads
from runtime.backends.cpu.scratch import scratch

_LARGEST_HEAD = 128


def attention_kernels(q: Tensor, k: Tensor, v: Tensor) -> Kernels | None:
    """The kernels that should attend with these tensors; None leaves it to torch.

    Args:
        q: [B, heads, n, d].
        k: [B, heads, m, d].
        v: like ``k``.
    """
    if q.device.type != "cpu" or torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return None  # whoever traces or counts torch's operations would not see this one
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if needs_gradient or not q.dtype == k.dtype == v.dtype or k.shape != v.shape:
        return None
    kernels = native_kernels().kernels
    if kernels is None or q.dtype not in (torch.float32, torch.bfloat16):
        return None
    fits = q.shape[-1] <= _LARGEST_HEAD and q.shape[-1] % kernels.panel == 0 and k.shape[2] > 0
    return kernels if fits else None


def attend(kernels: Kernels, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q kᵀ / sqrt(d)) v``.

    Args:
        kernels: as `attention_kernels` found them for these tensors.
        q: float32 or bfloat16 [B, heads, n, d].
        k: the same dtype [B, heads, m, d].
        v: like ``k``.

    Returns:
        [B, heads, n, d] of that dtype; in memory the heads of a token lie side by side.
    """
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    batch, heads, queries, size = q.shape
    key_tokens = k.shape[2]
    output = torch.empty(batch, queries, heads, size, dtype=q.dtype).transpose(1, 2)
    filled = -(-key_tokens // kernels.panel) * kernels.panel
    packed_keys, packed_values = scratch(batch * heads * filled * size)
    kernels.attention(
        AttentionArguments(
            queries=_described(q),
            keys=_described(k),
            values=_described(v),
            output=_described(output),
            packed_keys=address(packed_keys),
            packed_values=address(packed_values),
            batch=batch,
            heads=heads,
            query_tokens=queries,
            key_tokens=key_tokens,
            size=size,
            is_bfloat16=q.dtype == torch.bfloat16,
            threads=threads(),
        )
    )
    return output


def _described(x: Tensor) -> AttentionTensor:
    return AttentionTensor(address(x), x.stride(0), x.stride(1), x.stride(2))
