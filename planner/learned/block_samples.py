"""What one block is fed and what it should return, kept while that block learns.

A block that learns by its own output alone needs the rest of the network once: what comes before
has learned and stays, so its inputs can be kept. A step of the optimizer then costs one block
instead of a network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class BlockSample:
    """One call of a block.

    Attributes:
        arguments, keywords: of the call, in the quantized network.
        wanted: what the unquantized network's block returns, from its own inputs.
    """

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    wanted: tuple[Tensor, ...]


class _Stop(Exception):  # noqa: N818  (no error: what was wanted has been found)
    """Ends a forward pass."""


@torch.no_grad()
def block_sample(
    block: nn.Module,
    run: Callable[[], Tensor],
    unquantized: nn.Module,
    run_unquantized: Callable[[], Tensor],
) -> BlockSample:
    """The call of ``block`` in ``run``, and what ``unquantized`` returns in the other's pass."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append((arguments, keywords))
        raise _Stop

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run()
    except _Stop:
        pass
    finally:
        handle.remove()
    wanted, _ = block_output(unquantized, run_unquantized, whole=False)
    return BlockSample(*found[0], wanted)


def block_output(
    module: nn.Module, run: Callable[[], Tensor], *, whole: bool
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """What ``module`` returns in a forward pass.

    Args:
        module: a block.
        run: the forward pass.
        whole: whether it goes on to its end behind the block.

    Returns:
        The block's output tensors, and the pass's result, None unless ``whole``.
    """
    seen: list[tuple[Tensor, ...]] = []

    def keep(_module: nn.Module, _arguments: object, output: object) -> None:
        seen.append(tensors_of(output))
        if not whole:
            raise _Stop

    handle = module.register_forward_hook(keep)
    try:
        result = run()
    except _Stop:
        result = None
    finally:
        handle.remove()
    return seen[0], result


def tensors_of(output: object) -> tuple[Tensor, ...]:
    """The tensors that a block returns."""
    parts = output if isinstance(output, tuple) else (output,)
    return tuple(part for part in parts if isinstance(part, Tensor))
