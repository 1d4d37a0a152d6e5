"""What ``qplan inspect`` makes of a manifest (the command itself is tested with the others)."""

from io import StringIO

import pytest
from rich.console import Console

from artifacts.pack.reader import open_pack
from planner.inspect.inspection import layer_facts, select_layers, size_text, summary
from planner.inspect.pack_tables import render_pack
from schemas.errors import UsageError
from schemas.manifest import LayerRecord, TransformerBytes
from tests.artifacts.make_pack import TIMESTEPS, make_pack

KEPT = "transformer_blocks.0.norm1.linear"


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "m.qpack", unquantized=(KEPT,))
    return open_pack(tmp_path / "m.qpack")


def shown(pack, names):
    out = StringIO()
    Console(file=out, width=100, highlight=False).print(render_pack(pack, names))
    return out.getvalue()


def with_layers(manifest, **changes):
    layers = {
        name: LayerRecord(**(r.model_dump() | changes)) for name, r in manifest.layers.items()
    }
    return manifest.model_copy(update={"layers": layers})


def test_the_summary_counts(pack):
    facts = summary(pack.manifest)
    records = pack.manifest.layers.values()
    assert facts["kept_layers"] == 1
    assert facts["quantized_layers"] == len(records) - 1
    assert sum(facts["layers_by_weight_bits"].values()) == len(records)
    assert facts["layers_by_weight_bits"]["16"] == 1
    assert facts["omitted_tensors"] == len(pack.manifest.omitted)
    files = pack.manifest.files
    assert facts["transformer_bytes"]["pack"] == files["transformer.safetensors"].bytes
    assert facts["share_of_source"] == round(facts["transformer_bytes"]["pack"] / 1000, 6)
    assert facts["pack_bytes"] == sum(file.bytes for file in files.values())
    assert facts["error_db"] == {"lowest": 20.5, "mean": 20.5, "highest": 20.5}


def test_the_summary_without_errors_or_source(pack):
    manifest = with_layers(pack.manifest, error_db=None)
    empty = TransformerBytes(source=0, pack=5)
    manifest = manifest.model_copy(update={"transformer_bytes": empty})
    facts = summary(manifest)
    assert facts["error_db"] is None
    assert facts["share_of_source"] is None
    assert size_text(manifest) == "5 of 0 bytes"


def test_facts_of_a_layer_hold_its_bits_at_every_timestep(pack):
    facts = layer_facts(pack, select_layers(pack, None))
    assert facts[KEPT]["activation_bits"] == [16] * len(TIMESTEPS)
    others = [f["activation_bits"] for name, f in facts.items() if name != KEPT]
    assert others == [[5, 4, 16]] * (len(facts) - 1)


def test_patterns_select(pack):
    assert select_layers(pack, None) == list(pack.manifest.layers)
    assert select_layers(pack, r"0\.norm1") == [KEPT, "transformer_blocks.0.norm1_context.linear"]
    for pattern, said in (("[", "pattern"), ("nothing", "finds none")):
        with pytest.raises(UsageError, match=said):
            select_layers(pack, pattern)


def test_totals_add_up(pack):
    rows = [line.split() for line in shown(pack, select_layers(pack, None)).splitlines()]
    totals = [row for row in rows if row and row[0] == "total"]
    records = pack.manifest.layers.values()
    weights = sum(r.out_features * r.in_features for r in records)
    bits = sum(r.out_features * r.in_features * r.weight_bits for r in records) / weights
    activations = [b for layer in pack.bit_grid.layers.values() for b in layer.activation_bits]
    layers = [row for row in rows if row and row[0] in pack.manifest.layers]
    size = f"{sum(int(row[-1].replace(',', '')) for row in layers):,}"
    count, mean = str(len(records)), f"{sum(activations) / len(activations):.3f}"
    assert totals == [
        ["total", count, f"{weights:,}", "100.0%", size],
        ["total", count, f"{bits:.3f}", mean, "20.50", size],
        ["total", count, f"{bits:.3f}", mean, "20.50", size],
    ]


def test_rows_and_notes_are_shown_unbroken(pack):
    text = shown(pack, [KEPT])
    assert KEPT in text
    assert "5-16" not in text
    noted = with_layers(pack.manifest, note="[all] zeros")
    object.__setattr__(pack, "manifest", noted)
    names = list(noted.layers)
    text = shown(pack, names)
    assert "…" not in text
    assert "4-16" in text
    # Brackets are text, not markup.
    assert text.count(": [all] zeros") == len(names)
