"""The tables of ``qplan inspect``: essentials, weight bits, kinds of layers, layers; with totals.

Without lines, so that a pipe gets columns of words. Names never break; all fits into `COLUMNS` at
the published network's size.
"""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from artifacts.pack.reader import Pack
from planner.inspect.inspection import size_text, summary
from planner.inspect.layer_bytes import layer_bytes, stored_tensors
from planner.inspect.places import place_of
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import LayerRecord

TOTAL = "total"
COLUMNS = 120
SHARES = ("W error", "A error")
"""Headings: what layers add to the predicted error of the final latent."""


def render_pack(pack: Pack, names: Sequence[str]) -> RenderableType:
    """The pack's essentials, and tables of the layers ``names``."""
    tensors = stored_tensors(pack)
    sizes = {name: sum(layer_bytes(name, tensors).values()) for name in names}
    notes = [
        Text(f"{name}: {pack.manifest.layers[name].note}")
        for name in names
        if pack.manifest.layers[name].note
    ]
    tables = [_bits_table(pack, sizes), _kinds_table(pack, sizes), _layers_table(pack, sizes)]
    spaced = [part for table in tables for part in (Text(), table)]
    return Group(*map(Text, _essentials(pack)), *spaced, *notes)


def _essentials(pack: Pack) -> list[str]:
    facts = summary(pack.manifest)
    reached, target = facts["reached"], facts["target"]
    title = pack.architecture.family.title
    lines = [
        f"{pack.path}: {title} {facts['variant']}, recipe {facts['recipe']}",
        f"asked for W{target['weight_bits']}A{target['activation_bits']}, reached"
        f" {reached['weight_bits']:.4f} and {reached['activation_bits']:.4f} mean bits",
        f"transformer {size_text(pack.manifest)}; whole pack {facts['pack_bytes']:,} bytes",
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
    return lines


def _bits_table(pack: Pack, sizes: Mapping[str, int]) -> Table:
    table = _table("weight bits", "layers", "weights", "share", "bytes")
    records = pack.manifest.layers
    every = sum(_weights(records[name]) for name in sizes)

    def cells(names: Sequence[str]) -> list[str]:
        weights = sum(_weights(records[name]) for name in names)
        size = sum(sizes[name] for name in names)
        return [str(len(names)), f"{weights:,}", f"{weights / every:.1%}", f"{size:,}"]

    for bits in sorted({records[name].weight_bits for name in sizes}):
        table.add_row(str(bits), *cells([n for n in sizes if records[n].weight_bits == bits]))
    table.add_row(TOTAL, *cells(list(sizes)), style="bold")
    return table


def _kinds_table(pack: Pack, sizes: Mapping[str, int]) -> Table:
    """Layers of all blocks together, in the order in which they first occur."""
    explained = _is_explained(pack, sizes)
    table = _table("kind", "layers", "bits", "A bits", "dB", *explained, "bytes")
    kinds: dict[str, list[str]] = {}
    for name in pack.architecture.quantizable:
        if name in sizes:
            kinds.setdefault(place_of(name).kind, []).append(name)
    for kind, names in {**kinds, TOTAL: list(sizes)}.items():
        size = sum(sizes[name] for name in names)
        style = "bold" if kind is TOTAL else None
        cells = [*_means(pack, names), *_shares(pack, names, explained)]
        table.add_row(kind, str(len(names)), *cells, f"{size:,}", style=style)
    return table


def _layers_table(pack: Pack, sizes: Mapping[str, int]) -> Table:
    explained = _is_explained(pack, sizes)
    columns = ("shape", "bits", "A bits", "global", "local", "dB", *explained, "bytes")
    table = _table("layer", *columns)
    for name, size in sizes.items():
        record, bits = pack.manifest.layers[name], pack.bit_grid.layers[name].activation_bits
        cells = [*_cells(record, bits), *_shares(pack, [name], explained)]
        table.add_row(name, *cells, f"{size:,}")
    weight_bits, activation_bits, error = _means(pack, list(sizes))
    total = f"{sum(sizes.values()):,}"
    means = (weight_bits, activation_bits, "", "", error, *_shares(pack, list(sizes), explained))
    table.add_row(TOTAL, str(len(sizes)), *means, total, style="bold")
    return table


def _is_explained(pack: Pack, names: Iterable[str]) -> tuple[str, ...]:
    """Headings of the shares of the predicted error: two, or none where nothing was predicted."""
    records = (pack.manifest.layers[name] for name in names)
    return SHARES if any(record.error_share is not None for record in records) else ()


def _shares(pack: Pack, names: Sequence[str], headings: Sequence[str]) -> list[str]:
    """What layers add to the predicted error by weights and by activations, as percentages."""
    if not headings:
        return []
    known = [pack.manifest.layers[name].error_share for name in names]
    shares = [share for share in known if share is not None]
    sums = (sum(s.weights for s in shares), sum(s.activations for s in shares))
    return [f"{share:.2%}" if shares else "-" for share in sums]


def _table(label: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(label, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _means(pack: Pack, names: Sequence[str]) -> list[str]:
    """Mean weight bits by parameters, mean activation bits, mean decoding error of layers."""
    records = [pack.manifest.layers[name] for name in names]
    weight_bits = _mean((r.weight_bits, _weights(r)) for r in records)
    grid = (pack.bit_grid.layers[name].activation_bits for name in names)
    activation_bits = _mean((bits, 1) for row in grid for bits in row)
    errors = [(r.error_db, 1) for r in records if r.error_db is not None]
    error = f"{_mean(errors):.2f}" if errors else "-"
    return [f"{weight_bits:.3f}", f"{activation_bits:.3f}", error]


def _mean(weighted: Iterable[tuple[float, int]]) -> float:
    pairs = list(weighted)
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def _weights(record: LayerRecord) -> int:
    return record.out_features * record.in_features


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
