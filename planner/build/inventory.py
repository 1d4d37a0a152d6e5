"""What a build does with every tensor of a checkpoint: quantize, keep, leave out, or rebuild."""

from dataclasses import dataclass
from typing import Literal

from artifacts.checkpoint.reader import Checkpoint
from artifacts.dit4sr.layout import POSITION_TABLE, block_linears
from artifacts.dit4sr.position_table import is_sincos
from planner.build.network_probe import find_active_tensors
from planner.settings import BuildSettings


@dataclass(frozen=True)
class Inventory:
    """The tensors of one checkpoint by what becomes of them; together they are all of them.

    Attributes:
        quantized: names of block linears that get bits, in network order.
        kept: names of active block linears that stay in 16 bits by the user's wish.
        plain: names of tensors that are stored in bfloat16, the kept layers' among them.
        omitted: names of parameters that no forward pass reads, sorted.
        rebuilt: the position table, when it holds nothing but sines and cosines.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    plain: tuple[str, ...]
    omitted: tuple[str, ...]
    rebuilt: tuple[Literal["pos_embed.pos_embed"], ...]


def take_inventory(checkpoint: Checkpoint, settings: BuildSettings) -> Inventory:
    """Sort the checkpoint's tensors; only the position table is read.

    Raises:
        UsageError: a ``keep`` pattern finds no active layer.
        CheckpointError: the position table cannot be read.
    """
    active = find_active_tensors(checkpoint.config, settings.variant)
    linears = [name for name in block_linears(checkpoint.config) if f"{name}.weight" in active]
    kept = settings.kept_layers(linears)
    quantized = tuple(name for name in linears if name not in kept)

    names = checkpoint.names
    computable = POSITION_TABLE not in names or is_sincos(
        checkpoint.tensor(POSITION_TABLE), checkpoint.config
    )
    rebuilt: tuple[Literal["pos_embed.pos_embed"], ...] = (
        ("pos_embed.pos_embed",) if computable else ()
    )
    omitted = {name for name in names if name not in active and name != POSITION_TABLE}
    done = {f"{name}.{part}" for name in quantized for part in ("weight", "bias")}
    plain = tuple(name for name in names if name not in done | omitted | set(rebuilt))
    return Inventory(
        quantized,
        tuple(name for name in linears if name in kept),
        plain,
        tuple(sorted(omitted)),
        rebuilt,
    )
