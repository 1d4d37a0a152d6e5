"""What ``qplan inspect`` finds in a pack: essentials, layers, sizes; plain data."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from artifacts.pack.file_names import MODULATION
from artifacts.pack.reader import Pack
from schemas.errors import UsageError
from schemas.manifest import Manifest
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


def size_text(manifest: Manifest) -> str:
    """The transformer's size beside its source's; a pack need not know the latter."""
    sizes = manifest.transformer_bytes
    share = f" ({sizes.pack / sizes.source:.1%})" if sizes.source else ""
    return f"{sizes.pack:,} of {sizes.source:,} bytes{share}"
