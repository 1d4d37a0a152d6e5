"""What a layer does to its input before its weight comes in, as a key that layers can share."""

import hashlib
from collections.abc import Hashable

from torch import Tensor

from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.files.safetensors_io import tensor_bytes
from schemas.manifest import ScaleRule


def input_key(weight: QuantizedWeight, activation_scale: ScaleRule) -> Hashable:
    """Equal for layers that smooth, rotate and quantize their inputs alike.

    Vectors are compared by content, so that layers of one pack share whether or not they were
    read into the same tensors.
    """
    vectors = (_digest(weight.signs), _digest(weight.smoothing))
    return (weight.rotation, *vectors, activation_scale, weight.token_step)


def _digest(vector: Tensor | None) -> bytes | None:
    return None if vector is None else hashlib.sha256(tensor_bytes(vector)).digest()
