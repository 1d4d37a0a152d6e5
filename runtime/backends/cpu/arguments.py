"""What the compiled kernels are given: the structs of `native/*.h`, field by field.

The headers say what each field means. Pointers are the addresses of tensors, which the caller keeps
alive during the call.
"""

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import ClassVar

FLOAT32, BFLOAT16, DOUBLED_PRODUCTS = range(3)
"""What a product writes: `OutputType` of `native/gemm.h`."""
NO_ACTIVATION, GELU = range(2)
"""`Activation` of `native/gemm.h`."""


class ReorderArguments(ctypes.Structure):
    """`native/reorder.h`."""

    _fields_: ClassVar = [
        ("planes", c_void_p),
        ("ordered", c_void_p),
        ("sums", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
        ("bits", c_int32),
        ("threads", c_int32),
    ]


class PrepareArguments(ctypes.Structure):
    """`native/prepare.h`."""

    _fields_: ClassVar = [
        ("input", c_void_p),
        ("input_stride", c_int64),
        ("gain", c_void_p),
        ("rotated", c_void_p),
        ("codes", c_void_p),
        ("scale", c_void_p),
        ("tokens", c_int64),
        ("size", c_int64),
        ("block", c_int64),
        ("paley_order", c_int32),
        ("bits", c_int32),
        ("root_mean_square_gain", c_float),
        ("absmax_gain", c_float),
        ("is_bfloat16", c_int32),
        ("threads", c_int32),
    ]


class GemmArguments(ctypes.Structure):
    """`native/gemm.h`."""

    _fields_: ClassVar = [
        ("codes", c_void_p),
        ("code_stride", c_int64),
        ("tokens", c_int64),
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("weight", c_void_p),
        ("weight_sums", c_void_p),
        ("token_scale", c_void_p),
        ("channel_scale", c_void_p),
        ("bias", c_void_p),
        ("coordinates", c_void_p),
        ("rank", c_int64),
        ("global_rank", c_int64),
        ("local_count", c_int64),
        ("local_begin", c_void_p),
        ("up", c_void_p),
        ("output", c_void_p),
        ("output_stride", c_int64),
        ("activation_bits", c_int32),
        ("weight_bits", c_int32),
        ("output_type", c_int32),
        ("activation", c_int32),
        ("threads", c_int32),
    ]


class DownArguments(ctypes.Structure):
    """`native/factors.h`."""

    _fields_: ClassVar = [
        ("rotated", c_void_p),
        ("tokens", c_int64),
        ("size", c_int64),
        ("down", c_void_p),
        ("pieces", c_void_p),
        ("piece_count", c_int64),
        ("coordinates", c_void_p),
        ("rank", c_int64),
        ("threads", c_int32),
    ]


class AttentionTensor(ctypes.Structure):
    """`native/attention.h`."""

    _fields_: ClassVar = [
        ("data", c_void_p),
        ("batch_stride", c_int64),
        ("head_stride", c_int64),
        ("token_stride", c_int64),
    ]


class AttentionArguments(ctypes.Structure):
    """`native/attention.h`."""

    _fields_: ClassVar = [
        ("queries", AttentionTensor),
        ("keys", AttentionTensor),
        ("values", AttentionTensor),
        ("output", AttentionTensor),
        ("packed_keys", c_void_p),
        ("packed_values", c_void_p),
        ("batch", c_int64),
        ("heads", c_int64),
        ("query_tokens", c_int64),
        ("key_tokens", c_int64),
        ("size", c_int64),
        ("is_bfloat16", c_int32),
        ("threads", c_int32),
    ]
