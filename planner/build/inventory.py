"""What a build does with every tensor of a checkpoint: quantize, keep, leave out, or rebuild."""

from dataclasses import dataclass

from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import NO_MODULATIONS, Architecture, Modulations
from planner.build.network_probe import active_linears, find_active_tensors
from planner.settings import BuildSettings


@dataclass(frozen=True)
class Inventory:
    """The tensors of one checkpoint by what becomes of them; together they are all of them.

    Attributes:
        quantized: names of block linears that get bits, in network order.
        kept: names of active block linears that stay in 16 bits by the user's wish.
        plain: names of tensors that are stored in bfloat16, the kept layers' among them.
        tabled: names of parameters that are left out because the pack has a table of modulations.
        omitted: names of parameters that no forward pass reads, sorted.
        rebuilt: tensors that follow from the configuration, and hold nothing else here; sorted.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    plain: tuple[str, ...]
    tabled: tuple[str, ...]
    omitted: tuple[str, ...]
    rebuilt: tuple[str, ...]


def left_to_table(architecture: Architecture, settings: BuildSettings) -> Modulations:
    """The layers that a pack leaves out because it has a table of what they give."""
    return architecture.modulations if settings.modulation == "table" else NO_MODULATIONS


def take_inventory(checkpoint: Checkpoint, settings: BuildSettings) -> Inventory:
    """Sort the checkpoint's tensors; only those that might be rebuilt are read.

    Raises:
        UsageError: there is no such variant, or a ``keep`` pattern finds no active layer.
        CheckpointError: a tensor cannot be read.
    """
    architecture = checkpoint.architecture(settings.variant)
    active = find_active_tensors(architecture)
    linears = active_linears(architecture)
    tabled = left_to_table(architecture, settings)
    kept = settings.kept_layers(linears, tabled.layers)
    quantized = tuple(name for name in linears if name not in {*kept, *tabled.layers})

    names = checkpoint.names
    known = architecture.family.rebuilt
    rebuilt = tuple(
        name
        for name in sorted(known)
        if name not in names or known[name].equals(checkpoint.tensor(name), checkpoint.config)
    )
    omitted = {name for name in names if name not in active and name not in known}
    done = {f"{name}.{part}" for name in quantized for part in ("weight", "bias")}
    done |= tabled.tensors
    plain = tuple(name for name in names if name not in done | omitted | set(rebuilt))
    return Inventory(
        quantized,
        tuple(name for name in linears if name in kept),
        plain,
        tuple(sorted(tabled.tensors)),
        tuple(sorted(omitted)),
        rebuilt,
    )
