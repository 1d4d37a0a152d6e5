"""What ``qplan inspect`` shows of a pack."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from artifacts.pack.file_names import MODULATION
from artifacts.pack.reader import Pack
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import UsageError
from schemas.manifest import LayerRecord, Manifest
from schemas.patterns import compile_pattern


def select_layers(pack: Pack, pattern: str | None) -> list[str]:
    """Layers of the pack whose name the regular expression finds; all without one.

    Raises:
        UsageError: the pattern is no regular expression, or finds nothing.
    """
    names = list(pack.manifest.layers)
    if pattern is None:
        return names
    compiled = compile_pattern(pattern)
    found = [name for name in names if compiled.search(name)]
    if not found:
        raise UsageError(
            f"pattern {pattern!r} finds none of the {len(names)} layers",
            hint=f"a layer's name looks like {names[0]}",
        )
    return found


def summary(manifest: Manifest) -> dict[str, Any]:
    """The manifest's essentials, JSON-able."""
    quantized = [record for record in manifest.layers.values() if record.is_quantized]
    errors = [record.error_db for record in quantized if record.error_db is not None]
    sizes = manifest.transformer_bytes
    return {
        "format_version": manifest.format_version,
        "variant": manifest.model.variant,
        "recipe": manifest.recipe.name,
        "target": manifest.target.model_dump(),
        "reached": manifest.reached.model_dump(),
        "softmax_bits": manifest.quantizer.softmax_bits,
        "quantized_layers": len(quantized),
        "kept_layers": len(manifest.layers) - len(quantized),
        "omitted_tensors": len(manifest.omitted),
        "modulation": _modulation(manifest),
        "transformer_bytes": sizes.model_dump(),
        "share_of_source": round(sizes.pack / sizes.source, 6) if sizes.source else None,
        "pack_bytes": sum(file.bytes for file in manifest.files.values()),
        "layers_by_weight_bits": dict(
            sorted(Counter(str(record.weight_bits) for record in manifest.layers.values()).items())
        ),
        "error_db": {
            "lowest": min(errors),
            "mean": round(sum(errors) / len(errors), 3),
            "highest": max(errors),
        }
        if errors
        else None,
    }


def _modulation(manifest: Manifest) -> dict[str, Any] | None:
    """What the table of modulations holds; None where there is none."""
    record = manifest.modulation
    if record is None:
        return None
    return {
        "prompts": len(record.prompts),
        "steps": len(record.timesteps),
        "weights": record.weights,
        "bytes": manifest.files[MODULATION].bytes,
    }


def layer_facts(pack: Pack, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name -> record and activation bits of every timestep, JSON-able."""
    return {
        name: {
            **pack.manifest.layers[name].model_dump(mode="json"),
            "activation_bits": list(pack.bit_grid.layers[name].activation_bits),
        }
        for name in names
    }


def render_pack(pack: Pack, names: Sequence[str]) -> RenderableType:
    """The summary and a table of the layers ``names``."""
    facts = summary(pack.manifest)
    reached, target = facts["reached"], facts["target"]
    title = pack.architecture.family.title
    lines = [
        f"{pack.path}: {title} {facts['variant']}, recipe {facts['recipe']}",
        f"asked for W{target['weight_bits']}A{target['activation_bits']}, reached"
        f" {reached['weight_bits']:.4f} and {reached['activation_bits']:.4f} mean bits",
        f"transformer {size_text(pack.manifest)}; whole pack {facts['pack_bytes']:,} bytes",
        "layers by weight bits: "
        + ", ".join(f"{count} of {bits}" for bits, count in facts["layers_by_weight_bits"].items()),
    ]
    table = facts["modulation"]
    if table is not None:
        layers = "beside" if table["weights"] else "instead of"
        lines.append(
            f"table of modulations {layers} their layers: {table['prompts']} prompts x"
            f" {table['steps']} steps, {table['bytes']:,} bytes"
        )
    if facts["softmax_bits"] != UNQUANTIZED:
        lines.append(f"attention probabilities: {facts['softmax_bits']} bits")
    if facts["error_db"] is not None:
        error = facts["error_db"]
        lines.append(
            f"decoding error: {error['lowest']:.1f} to {error['highest']:.1f} dB, mean"
            f" {error['mean']:.1f} dB (signal to noise; more is better)"
        )
    rows = Table(box=None, pad_edge=False)
    rows.add_column("layer", no_wrap=True)
    for column in ("shape", "bits", "A bits", "global", "local", "dB"):
        rows.add_column(column, justify="right", no_wrap=True)
    for name in names:
        activations = pack.bit_grid.layers[name].activation_bits
        rows.add_row(name, *_cells(pack.manifest.layers[name], activations))
    notes = [
        Text(f"{name}: {pack.manifest.layers[name].note}")
        for name in names
        if pack.manifest.layers[name].note
    ]
    return Group(*map(Text, lines), Text(), rows, *notes)


def size_text(manifest: Manifest) -> str:
    """The transformer's size beside its source's; a pack need not know the latter."""
    sizes = manifest.transformer_bytes
    share = f" ({sizes.pack / sizes.source:.1%})" if sizes.source else ""
    return f"{sizes.pack:,} of {sizes.source:,} bytes{share}"


def _cells(record: LayerRecord, activations: Sequence[int]) -> list[str]:
    low, high = min(activations), max(activations)
    return [
        f"{record.out_features}x{record.in_features}",
        str(record.weight_bits),
        str(low) if low == high else f"{low}-{high}",
        str(record.global_rank or "-"),
        "-" if record.local_block is None else "{}x{}".format(*record.local_block),
        "-" if record.error_db is None else f"{record.error_db:.2f}",
    ]
