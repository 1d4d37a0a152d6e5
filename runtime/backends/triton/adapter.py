"""From a pack's record to a layer: the one module here that knows packs."""

import logging

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.input_key import input_key
from runtime.backends.reference import ReferenceLinear
from runtime.backends.triton.linear import LayerTensors, TritonLinear
from runtime.backends.triton.resident import Residency
from runtime.network.projection import QuantizableLinear
from schemas.manifest import ScaleRule

logger = logging.getLogger(__name__)


def layer_tensors(weight: QuantizedWeight, activation_scale: ScaleRule) -> LayerTensors:
    """The record's fields as plain tensors."""
    return LayerTensors(
        name=weight.name,
        codes=weight.unpacked_codes(),
        weight_bits=weight.weight_bits,
        scale=weight.scale,
        rotation=weight.rotation,
        signs=weight.signs,
        smoothing=weight.smoothing,
        global_up=weight.global_up,
        global_down=weight.global_down,
        local_up=weight.local_up,
        local_down=weight.local_down,
        bias=weight.bias,
        input_key=input_key(weight, activation_scale),
    )


def make_layer(
    weight: QuantizedWeight, activation_scale: ScaleRule, residency: Residency
) -> QuantizableLinear:
    """A layer on the kernels, or on the reference where its inputs are too many for them."""
    try:
        return TritonLinear(layer_tensors(weight, activation_scale), activation_scale, residency)
    except ValueError as cause:
        logger.info("layer %s on the reference backend: %s", weight.name, cause)
        return ReferenceLinear(weight, activation_scale)
