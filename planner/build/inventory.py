"""What a build does with every tensor of a checkpoint: quantize, keep, leave out, or rebuild."""

from dataclasses import dataclass

from artifacts.checkpoint.reader import Checkpoint
from planner.build.network_probe import active_linears, find_active_tensors
from planner.settings import BuildSettings


@dataclass(frozen=True)
class Inventory:
    """The tensors of one checkpoint by what becomes of them; together they are all of them.

    Attributes:
        quantized: names of block linears that get bits, in network order.
        kept: names of active block linears that stay in 16 bits by the user's wish.
        plain: names of tensors that are stored in bfloat16, the kept layers' among them.
        omitted: names of parameters that no forward pass reads, sorted.
        rebuilt: tensors that follow from the configuration, and hold nothing else here; sorted.
    """

    quantized: tuple[str, ...]
    kept: tuple[str, ...]
    plain: tuple[str, ...]
    omitted: tuple[str, ...]
    rebuilt: tuple[str, ...]


def take_inventory(checkpoint: Checkpoint, settings: BuildSettings) -> Inventory:
    """Sort the checkpoint's tensors; only those that might be rebuilt are read.

    Raises:
        UsageError: there is no such variant, or a ``keep`` pattern finds no active layer.
        CheckpointError: a tensor cannot be read.
    """
    architecture = checkpoint.architecture(settings.variant)
    active = find_active_tensors(architecture)
    linears = active_linears(architecture)
    kept = settings.kept_layers(linears)
    quantized = tuple(name for name in linears if name not in kept)

    names = checkpoint.names
    known = architecture.family.rebuilt
    rebuilt = tuple(
        name
        for name in sorted(known)
        if name not in names or known[name].equals(checkpoint.tensor(name), checkpoint.config)
    )
    omitted = {name for name in names if name not in active and name not in known}
    done = {f"{name}.{part}" for name in quantized for part in ("weight", "bias")}
    plain = tuple(name for name in names if name not in done | omitted | set(rebuilt))
    return Inventory(
        quantized,
        tuple(name for name in linears if name in kept),
        plain,
        tuple(sorted(omitted)),
        rebuilt,
    )
