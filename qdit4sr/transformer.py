"""The network of a pack as one of diffusers' models, for programs that sample by themselves.

from qdit4sr.transformer import QuantizedTransformer

transformer = QuantizedTransformer.from_pretrained("model.qpack", torch_dtype=torch.bfloat16)
velocity = transformer(latents, timestep, control, prompt_embeds, pooled_prompt_embeds).sample
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from artifacts.family import Architecture
from artifacts.hub.fetch import local_pack
from artifacts.pack.reader import open_pack
from runtime.backends.residency import resident_backend
from runtime.device import device_and_dtype
from runtime.load import network_from_pack
from runtime.network.family import LatentNetwork
from runtime.sampling.bit_schedule import BitsAt, BitSchedule, constant_bits
from schemas.errors import UsageError


class QuantizedTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """A loaded network that finds the bits of each timestep by itself.

    Args:
        architecture: of the network.
        network: on its device.
        bits_at: the bit grid, looked up by timestep.
        arguments: of `from_pretrained`, kept for `to`; None where the network is a pipeline's.
    """

    config_name = "config.json"

    def __init__(
        self,
        architecture: Architecture,
        network: LatentNetwork,
        bits_at: BitsAt,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._bits_at = bits_at
        self._arguments = arguments
        self.register_to_config(**architecture.config.model_dump(), variant=architecture.variant)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        torch_dtype: torch.dtype | None = None,
        device: str = "auto",
        backend: str = "auto",
        memory: str = "auto",
        activation_bits: int | None = None,
    ) -> "QuantizedTransformer":
        """Load the network of a pack; a pack with a table of modulations serves its own steps.

        Args:
            pretrained_model_name_or_path: a pack, or ``org/name[@revision]`` on the hub.
            torch_dtype: of what is not quantized; None for what suits the device.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            backend: ``auto``, or one that ``qrun doctor`` lists.
            memory: ``auto``, ``low`` or ``fast``.
            activation_bits: of every quantized layer; None for the pack's bit grid.

        Raises:
            PackError: it is no pack, or a damaged one.
            UsageError: it cannot run there.
        """
        arguments = {
            "torch_dtype": torch_dtype,
            "backend": backend,
            "memory": memory,
            "activation_bits": activation_bits,
        }
        pack = open_pack(local_pack(Path(pretrained_model_name_or_path)))
        name = "auto" if torch_dtype is None else str(torch_dtype).removeprefix("torch.")
        place, dtype = device_and_dtype(device, name, backend=backend)
        network = network_from_pack(
            pack,
            device=place,
            dtype=dtype,
            backend=resident_backend(backend, memory, pack, place, dtype),
        )
        grid = BitSchedule(pack.bit_grid)
        bits_at = grid if activation_bits is None else constant_bits(grid, activation_bits)
        source = {"pretrained_model_name_or_path": pretrained_model_name_or_path, **arguments}
        return cls(pack.architecture, network, bits_at, source)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float,
        control: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        return_dict: bool = True,
    ) -> Any:
        """Predict the velocity of ``hidden_states``.

        Args:
            hidden_states: noisy latents [B, C, h, w].
            timestep: 0 ... 1000, one for all; a number, or a tensor [] or [B].
            control: latents of the low-resolution images, of the same shape.
            encoder_hidden_states: prompt tokens [B, m, J].
            pooled_projections: pooled prompts [B, P].
            return_dict: False gives a tuple.

        Returns:
            A `Transformer2DModelOutput`, whose ``sample`` is [B, C, h, w].

        Raises:
            ValueError: timesteps differ: a timestep has its own bits.
            UsageError: a pack that has a table in place of its modulation layers is asked for
                another timestep or pooled prompt than it has.
        """
        steps = torch.as_tensor(timestep, dtype=torch.float32, device=hidden_states.device)
        steps = steps.expand(hidden_states.shape[0])
        if bool((steps != steps[0]).any()):
            raise ValueError("one timestep for all: each has its own bits")
        self._check_table(steps, pooled_projections)
        velocity = self.network(
            hidden_states,
            control,
            encoder_hidden_states,
            pooled_projections,
            steps,
            self._bits_at(float(steps[0])),
        )
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def _check_table(self, steps: Tensor, pooled: Tensor) -> None:
        table = self.network.table_index
        if table is None or table.complete or bool(table(steps, pooled).known.all()):
            return
        known = ", ".join(f"{step:.6g}" for step in table.get_buffer("timesteps").tolist())
        raise UsageError(
            f"the pack has modulations for timesteps {known} and for its own pooled prompts alone,"
            f" not for {float(steps[0]):g} with these",
            hint="build it with --modulation both for others",
        )

    def to(self, *args: Any, **kwargs: Any) -> "QuantizedTransformer":
        """Load the network again on another device; returns this model.

        Raises:
            UsageError: another number format is asked for, or the network is a pipeline's, which
                is moved as a whole.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None and dtype != self.dtype:
            raise UsageError(
                f"a pack's network in {self.dtype} is not cast to {dtype}",
                hint="from_pretrained(..., torch_dtype=...) loads it so",
            )
        if device is None or device.type == self.device.type:
            return self
        if self._arguments is None:
            raise UsageError("the network is a pipeline's", hint="move the pipeline: pipe.to(...)")
        other = type(self).from_pretrained(**self._arguments, device=device.type)
        self.network = other.network
        return self

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "QuantizedTransformer":
        """What torch's own ways to cast and to move come to: ``half()``, ``cuda()``, ``type(...)``.

        Raises:
            UsageError: as `to`.
        """
        wanted = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        return self.to(wanted.device, wanted.dtype)

    def save_pretrained(self, *_args: Any, **_kwargs: Any) -> None:
        """Refused.

        Raises:
            UsageError: always: the pack is the form in which it is kept.
        """
        raise UsageError("a network of a pack is kept as its pack", hint="copy the pack's folder")

    def __reduce__(self) -> Any:
        raise TypeError(
            "a pack's network cannot be pickled: it holds kernels and memory of this process; load"
            " the pack again in the other one"
        )
