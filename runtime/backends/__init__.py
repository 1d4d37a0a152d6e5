"""How a quantized layer is computed: one module per backend, one table that picks.

Every backend offers a class with the reference's signature (`reference.ReferenceLinear`); the
table says which exist, which the machine can run, and what the choice was is logged.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import torch

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.trial import Trial
from runtime.device_names import check_names
from runtime.network.projection import QuantizableLinear
from schemas.errors import UsageError
from schemas.manifest import QuantizerRecord

logger = logging.getLogger(__name__)

LayerFactory = Callable[[QuantizedWeight, QuantizerRecord], QuantizableLinear]


@dataclass(frozen=True)
class Backend:
    """One way to compute a quantized layer.

    Attributes:
        name: what ``--backend`` calls it.
        factory: builds the layer, on the CPU, from its record in a pack; `make_layer` checks it.
        missing: why the machine cannot run it on a device, or None when it can.
        self_check: why it should not be taken by itself on a device that it can run on, found out
            on a pack's layers, or None when it may; None where `missing` says all.
        details: what it computes with on this machine, for `qrun doctor` and the log; None where
            there is nothing to tell.
        product_bits: of the integers that it multiplies: codes of fewer bits save no product. None
            where it multiplies floating-point numbers.
    """

    name: str
    factory: LayerFactory
    missing: Callable[[torch.device], str | None]
    self_check: Callable[[torch.device, Trial], str | None] | None = None
    details: Callable[[], str] | None = None
    product_bits: int | None = 8

    def described(self) -> str:
        """What it computes with, in one line; nothing for plain floating-point numbers."""
        said = [] if self.details is None else [self.details()]
        if self.product_bits is not None:
            said.append(
                f"multiplies {self.product_bits}-bit integers: activations of fewer bits save"
                " little or no time"
            )
        return "; ".join(said)

    def objection(self, device: torch.device, trial: Trial | None) -> str | None:
        """Why it is not to be taken by itself on ``device``; None where it may be.

        Args:
            device: where layers would be computed.
            trial: layers to try it on; without some, what has to be tried is not taken.
        """
        missing = self.missing(device)
        if missing or self.self_check is None:
            return missing
        if trial is None:
            return "it is taken once it has been tried on a pack's layers"
        return self.self_check(device, trial)

    def make_layer(
        self, weight: "QuantizedWeight", quantizer: "QuantizerRecord"
    ) -> QuantizableLinear:
        """Build a layer, on the CPU.

        Args:
            weight: its record in a pack.
            quantizer: how the pack's activations are quantized.

        Raises:
            UsageError: the layer has a part that the backend does not compute with.
        """
        layer = self.factory(weight, quantizer)
        present = {part for part, tensor in weight.parts().items() if tensor is not None}
        unknown = sorted(present - layer.known_parts)
        if unknown:
            raise UsageError(
                f"backend {self.name} cannot compute layer {weight.name}: it does not know its"
                f" {', '.join(unknown)}",
                hint="choose another backend, or upgrade this program",
            )
        return layer


def _reference_layer(weight: QuantizedWeight, quantizer: QuantizerRecord) -> QuantizableLinear:
    from runtime.backends.reference import ReferenceLinear  # noqa: PLC0415

    return ReferenceLinear(weight, quantizer.activation_scale)


def _cpu_layer(weight: QuantizedWeight, quantizer: QuantizerRecord) -> QuantizableLinear:
    from runtime.backends.cpu.kernels import native_kernels  # noqa: PLC0415
    from runtime.backends.cpu.linear import CpuLinear  # noqa: PLC0415
    from runtime.backends.cpu.native_linear import NativeLinear  # noqa: PLC0415

    choice = native_kernels()
    try:
        if choice.kernels is None:
            return CpuLinear(weight, quantizer.activation_scale, choice.preparing)
        return NativeLinear(weight, quantizer.activation_scale, choice.kernels)
    except ValueError as cause:  # more inputs than 32-bit sums hold
        logger.info("layer %s on the reference backend: %s", weight.name, cause)
        return _reference_layer(weight, quantizer)


def _cpu_missing(device: torch.device) -> str | None:
    from runtime.backends.cpu.int8_weight import inexact_reason  # noqa: PLC0415
    from runtime.backends.cpu.kernels import native_kernels  # noqa: PLC0415

    if device.type != "cpu":
        return "it runs on the CPU alone"
    choice = native_kernels()
    reason = inexact_reason() if choice.kernels is None else None
    return reason and f"{reason}; {choice}"


def _cpu_details() -> str:
    from runtime.backends.cpu.kernels import native_kernels  # noqa: PLC0415

    return str(native_kernels())


def _triton_factory(residency: Literal["int8", "packed"]) -> LayerFactory:
    def make(weight: QuantizedWeight, quantizer: QuantizerRecord) -> QuantizableLinear:
        from runtime.backends.triton.linear import TritonLinear  # noqa: PLC0415

        try:
            return TritonLinear(weight, quantizer.activation_scale, residency)
        except ValueError as cause:  # more inputs than the kernels hold
            logger.info("layer %s on the reference backend: %s", weight.name, cause)
            return _reference_layer(weight, quantizer)

    return make


def _triton_missing(device: torch.device) -> str | None:
    from runtime.backends.triton.device import missing_reason  # noqa: PLC0415

    return missing_reason(device)


def _triton_self_check(device: torch.device, trial: Trial) -> str | None:
    from runtime.backends.triton.self_check import self_check  # noqa: PLC0415

    return self_check(device, trial)


BACKENDS: dict[str, Backend] = {
    "cpu": Backend("cpu", _cpu_layer, _cpu_missing, details=_cpu_details),
    "triton": Backend("triton", _triton_factory("int8"), _triton_missing, _triton_self_check),
    "reference": Backend("reference", _reference_layer, lambda device: None, product_bits=None),
    # After the reference, so only when asked for: it saves memory and takes longer.
    "triton-packed": Backend("triton-packed", _triton_factory("packed"), _triton_missing),
}
"""By name, the preferred ones first."""


def select_backend(name: str, device: torch.device, trial: Trial | None = None) -> Backend:
    """Find the backend called ``name``, and log it; as `find_backend` otherwise.

    Raises:
        UsageError: there is no such backend, or this machine cannot run it.
        ResourceError: trying one made the device unusable.
    """
    chosen = find_backend(name, device, trial)
    remark = chosen.described()
    if name == "auto" and chosen.name == "reference":  # slow: say why it has to be
        before = takewhile(lambda each: each is not chosen, BACKENDS.values())
        reasons = {each.name: each.objection(device, trial) for each in before}
        remark = "; ".join(f"{key}: {why}" for key, why in reasons.items() if why)
    logger.info("backend %s on %s%s", chosen.name, device, remark and f" ({remark})")
    return chosen


def find_backend(name: str, device: torch.device, trial: Trial | None = None) -> Backend:
    """Find the backend called ``name``, or the first that may be taken on ``device`` for ``auto``.

    Args:
        name: of a backend, or ``auto``.
        device: where layers are to be computed.
        trial: layers on which ``auto`` tries backends that have to be tried.

    Raises:
        UsageError: there is no such backend, or this machine cannot run it.
        ResourceError: trying one made the device unusable.
    """
    if name == "auto":
        return next(each for each in BACKENDS.values() if not each.objection(device, trial))
    if name not in BACKENDS:
        check_names("auto", backend=name)
    reason = BACKENDS[name].missing(device)
    if reason:
        raise UsageError(f"backend {name} cannot run on {device}: {reason}")
    return BACKENDS[name]
