"""What ``qplan diff`` shows: in what two packs differ, as far as their JSON files say.

The first pack is where one comes from, the second where one goes to: ``before -> after``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from artifacts.pack.reader import Pack
from planner.inspect.inspection import select_layers
from planner.settings import LATER_SETTINGS
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import UsageError
from schemas.manifest import LayerRecord, Manifest


def select_from_both(first: Pack, second: Pack, pattern: str) -> list[str]:
    """Layers of either pack that the regular expression finds, in the order of the first.

    Raises:
        UsageError: the pattern is no regular expression, or finds nothing in either.
    """
    found: dict[str, None] = {}
    refusals = []
    for pack in (first, second):
        try:
            found |= dict.fromkeys(select_layers(pack, pattern))
        except UsageError as refusal:
            refusals.append(refusal)
    if not found:
        raise refusals[0]
    return list(found)


def compare(first: Pack, second: Pack) -> dict[str, Any]:
    """The differences of two packs, JSON-able; pairs are {"before": ..., "after": ...}.

    ``equal`` says that the manifests are, and with them the hash of every file.
    """
    old, new = first.manifest, second.manifest
    shared = [name for name in old.layers if name in new.layers]
    return {
        "equal": old.checksum == new.checksum,
        "settings": _changed(_settings(old), _settings(new)),
        "target": _pair(old.target.model_dump(), new.target.model_dump()),
        "reached": _pair(old.reached.model_dump(), new.reached.model_dump()),
        "transformer_bytes": _pair(old.transformer_bytes.pack, new.transformer_bytes.pack),
        "pack_bytes": _pair(*(sum(f.bytes for f in m.files.values()) for m in (old, new))),
        "files": _changed(*({n: f.sha256 for n, f in m.files.items()} for m in (old, new))),
        "layers": {
            "shared": len(shared),
            "only_before": [name for name in old.layers if name not in new.layers],
            "only_after": [name for name in new.layers if name not in old.layers],
        },
        "weight_bits": _counts(
            (old.layers[name].weight_bits, new.layers[name].weight_bits) for name in shared
        ),
        "activation_bits": _grid_changes(first, second, shared),
        "error_db": _error_changes(old.layers, new.layers, shared),
    }


def layer_changes(first: Pack, second: Pack, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of the layers ``names``, those that differ: name -> what differs, JSON-able.

    Activation bits for other timesteps are not compared.
    """
    comparable = first.bit_grid.timesteps == second.bit_grid.timesteps
    found = {}
    for name in names:
        changed = _changed(_layer_facts(first, name), _layer_facts(second, name))
        if not comparable:
            changed.pop("activation_bits", None)
        if changed:
            found[name] = changed
    return found


def render_diff(
    first: Pack, second: Pack, found: Mapping[str, Any], rows: Mapping[str, Any] | None
) -> RenderableType:
    """What `compare` found, and the layers of `layer_changes` where they were asked for."""
    lines = [f"{first.path} -> {second.path}"]
    if found["equal"]:
        lines.append(
            "the packs are equal, byte for byte, by the hashes in their manifests (`qplan verify`"
            " compares those with the files)"
        )
    lines += [f"{name}: {_arrow(pair)}" for name, pair in found["settings"].items()]
    for name in ("target", "reached"):
        before, after = found[name]["before"], found[name]["after"]
        lines += [
            f"{name} mean {kind.replace('_', ' ')}: {before[kind]} -> {after[kind]}"
            for kind in before
            if before[kind] != after[kind]
        ]
    for name in ("transformer_bytes", "pack_bytes"):
        before, after = found[name]["before"], found[name]["after"]
        if before != after:
            change = f" ({after / before - 1:+.2%})" if before else ""
            lines.append(f"{name.replace('_', ' ')}: {before:,} -> {after:,}{change}")
    for side in ("only_before", "only_after"):
        if found["layers"][side]:
            lines.append(f"layers {side.replace('_', ' ')}: {len(found['layers'][side])}")
    lines += _bit_lines(found)
    if found["files"]:
        lines.append(f"files that differ: {', '.join(found['files'])}")
    parts: list[RenderableType] = [*map(Text, lines)]
    if rows is not None:
        parts += [Text(), _table(rows) if rows else Text("none of these layers differs")]
    return Group(*parts)


def _bit_lines(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if found["weight_bits"]:
        lines.append(f"weight bits, layers: {_counted(found['weight_bits'])}")
    grid = found["activation_bits"]
    if not grid["same_timesteps"]:
        lines.append("activation bits are for other timesteps, and not compared")
    elif grid["layers"]:
        lines.append(
            f"activation bits of {grid['layers']} layers, layers x timesteps:"
            f" {_counted(grid['changes'])}"
        )
    error = found["error_db"]
    if error["changed"]:
        mean = error["mean"]
        lines.append(
            f"decoding error: {error['changed']} layers, mean {mean['before']:.2f} ->"
            f" {mean['after']:.2f} dB (more is better)"
        )
        for what in ("most_lost", "most_gained"):
            layer = error[what]
            if layer is not None:
                lines.append(f"  {what.replace('_', ' ')}: {layer['layer']} {_arrow(layer)} dB")
    return lines


def _table(rows: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for column in ("bits", "A bits", "dB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("also")
    shown = ("weight_bits", "activation_bits", "error_db")
    for name, changed in rows.items():
        cells = [_arrow(changed[key]) if key in changed else "" for key in shown]
        table.add_row(name, *cells, _also(changed, shown))
    return table


def _also(changed: Mapping[str, Any], shown: Sequence[str]) -> str:
    """What else a row differs in, but for the energies, which nearly always do."""
    bits = changed.get("weight_bits", {"before": 0, "after": 0})
    if None in bits.values():
        return "only before" if bits["after"] is None else "only after"
    if UNQUANTIZED in bits.values():
        return ""  # it has no factors and no rotation then
    quiet = (*shown, "global_energy", "local_energy")
    return ", ".join(key.replace("_", " ") for key in changed if key not in quiet)


def _settings(manifest: Manifest) -> dict[str, Any]:
    """All that was chosen or given: name -> value. The recipe's settings go before the rest."""
    model, calibration, table = manifest.model, manifest.calibration, manifest.modulation
    sections: dict[str, Mapping[str, Any]] = {
        "network": {"variant": model.variant, **model.config},
        "source": {"sha256": [file.sha256 for file in manifest.source.files]},
        "rotation": {"enabled": manifest.rotation.enabled, "signs": manifest.rotation.signs},
        "quantizer": manifest.quantizer.model_dump(mode="json"),
        "sampling": manifest.sampling.model_dump(mode="json"),
        "modulation": {} if table is None else table.model_dump(mode="json"),
        "calibration": {} if calibration is None else calibration.model_dump(mode="json"),
        "producer": manifest.producer.model_dump(mode="json"),
        "recipe": {"name": manifest.recipe.name},
    }
    settings = {**LATER_SETTINGS, **manifest.recipe.settings}
    found = {f"settings.{key}": value for key, value in settings.items()}
    for part, facts in sections.items():
        for key, value in facts.items():
            # Most packs say these things twice: as a setting, and as the fact that came of it.
            if not {part, key, f"{part}_{key}"} & set(settings):
                found[f"{part}.{key}"] = value
    return found


def _layer_facts(pack: Pack, name: str) -> dict[str, Any]:
    """One layer's record and activation bits; nothing where the pack has no such layer."""
    if name not in pack.manifest.layers:
        return {}
    record = pack.manifest.layers[name].model_dump(mode="json")
    return {**record, "activation_bits": list(pack.bit_grid.layers[name].activation_bits)}


def _grid_changes(first: Pack, second: Pack, names: Sequence[str]) -> dict[str, Any]:
    """How often which activation bits became which; not compared between other timesteps."""
    if first.bit_grid.timesteps != second.bit_grid.timesteps:
        return {"same_timesteps": False, "layers": None, "changes": {}}
    old, new = first.bit_grid.layers, second.bit_grid.layers
    rows = [(old[name].activation_bits, new[name].activation_bits) for name in names]
    return {
        "same_timesteps": True,
        "layers": sum(before != after for before, after in rows),
        "changes": _counts(pair for row in rows for pair in zip(*row, strict=True)),
    }


def _error_changes(
    old: Mapping[str, LayerRecord], new: Mapping[str, LayerRecord], names: Sequence[str]
) -> dict[str, Any]:
    """Decoding errors in dB of the layers that have one in both packs."""
    pairs = {}
    for name in names:
        before, after = old[name].error_db, new[name].error_db
        if before is not None and after is not None:
            pairs[name] = (before, after)
    by_gain = sorted(pairs, key=lambda name: pairs[name][1] - pairs[name][0])

    def extreme(name: str, sign: int) -> dict[str, Any] | None:
        before, after = pairs[name]
        return {"layer": name, **_pair(before, after)} if sign * (after - before) > 0 else None

    means = [round(sum(side) / len(side), 3) for side in zip(*pairs.values(), strict=True)]
    return {
        "compared": len(pairs),
        "changed": sum(before != after for before, after in pairs.values()),
        "mean": _pair(*means) if means else None,
        "most_lost": extreme(by_gain[0], -1) if by_gain else None,
        "most_gained": extreme(by_gain[-1], 1) if by_gain else None,
    }


def _counts(pairs: Any) -> dict[str, int]:
    """How many pairs changed in which way ("4 -> 3"), in the order of the bits."""
    counted = Counter((before, after) for before, after in pairs if before != after)
    return {f"{before} -> {after}": counted[before, after] for before, after in sorted(counted)}


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Keys whose values differ: both values, None where there is none."""
    keys = dict.fromkeys([*old, *new])
    return {key: _pair(old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _pair(before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after}


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {change}" for change, count in counts.items())


def _arrow(pair: Mapping[str, Any]) -> str:
    return f"{_short(pair['before'])} -> {_short(pair['after'])}"


def _short(value: Any) -> str:
    """A value in a few characters: bits of many timesteps as a range, a hash by its start."""
    if value is None:
        return "-"
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        low, high = min(value), max(value)
        return str(low) if low == high else f"{low}-{high}"
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) < 64 else f"{text[:12]}..."
