"""The paper's tables and figures: rows, the MP baseline and principal components, on little."""

import pytest
import torch

from artifacts.pack.reader import open_pack
from benchmarks.paper import __main__ as command
from benchmarks.paper.components import decompose, error_by_component, gather, output_layers, remove
from benchmarks.paper.document import introduction, table
from benchmarks.paper.mixed_precision import end_to_end_errors, mixed_precision_grid
from benchmarks.paper.plots import grouped
from benchmarks.paper.tables import LEARNED, MP, RANKS, tables
from benchmarks.quality.measure import Sampling, make_bench
from benchmarks.quality.packs import PackMaker
from planner.learned.recipes import LEARNED_RECIPES

SAMPLING = Sampling(
    command.MODEL, crops=1, crop_px=128, seeds=1, steps=1, guidance=1.0, pictures=False
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(SAMPLING, tmp_path_factory.mktemp("paper"), lambda *_: None)


def test_rows_of_one_name_are_one_network():
    known = {}
    for paper in tables():
        assert len({row.full_name for row in paper.rows}) == len(paper.rows)
        for row in paper.rows:
            assert known.setdefault(row.full_name, row.settings()) == row.settings()
    names = {row.name for row in tables()[0].rows}
    assert names == {"rtn", "quarot", f"svdquant-r{RANKS.global_rank}", "q-dit4sr", "standard"}
    assert [row.overrides["local_rank"] for row in tables()[1].rows] == [1, 2, 4, 8]


def test_what_was_not_measured_and_is_missing_is_named():
    text = "\n".join(table(tables()[0], {}))
    assert "Not measured at W4A4: RTN, QuaRot" in text
    assert all(name in text for name in LEARNED.values())


def test_notes_written_by_hand_stand_before_the_tables():
    sampling = {"crops": 1, "crop_px": 128, "seeds": 1, "steps": 1}
    without = introduction("net", "command", sampling)
    assert introduction("net", "command", sampling, "By hand.\n") == [*without, "By hand.", ""]


def test_methods_that_learn_are_read_from_where_they_were_measured():
    row = {"target": "W4A4", "method": "flatquant", "seed": 0}
    values = {"latent_db": [[12.0, 14.0], [16.0, 18.0]]}
    content = {"row": row, "values": values, "built_seconds": 120.0, "images": 32}
    text = "\n".join(table(tables()[0], {}, [content]))
    assert "| W4A4 | flatquant | 15.00 [13.00, 17.00] | 15.00 | 32 | 2.0 |" in text
    at_w4a6, at_w4a4 = (line for line in text.splitlines() if line.startswith("Not measured at"))
    assert "FlatQuant" in at_w4a6
    assert "FlatQuant" not in at_w4a4
    assert set(LEARNED) <= set(LEARNED_RECIPES)


def test_mixed_precision_gives_bits_to_layers_that_err_alone(bench, tmp_path):
    maker = PackMaker(SAMPLING.model, tmp_path, steps=1, guidance=1.0)
    row = next(row for row in tables()[2].rows if row.name == MP)
    before = {name: p.clone() for name, p in bench.pipeline.network.named_parameters()}
    with maker.pack(row) as pack:
        errors = end_to_end_errors(bench, open_pack(pack.path), limit=3)
        first, second, third, *others = pack.layer_names
        mean = (errors[first] + errors[second] + errors[third]) / 3
        assert [errors[name] for name in others] == pytest.approx([mean] * len(others))
        assert errors[first] > 0
        # As the unquantized network was.
        after = dict(bench.pipeline.network.named_parameters())
        assert all(torch.equal(before[name], after[name]) for name in before)

        small = min(errors, key=lambda n: pack.layer(n).out_features * pack.layer(n).in_features)
        dear = {name: 1e6 if name == small else 1e-6 for name in errors}
        grid = mixed_precision_grid(pack, dear, maker.settings(row))
        assert grid.layers[small].weight_bits == 8
        records = pack.manifest.layers
        weights = {n: records[n].out_features * records[n].in_features for n in errors}
        bits = sum(grid.layers[n].weight_bits * size for n, size in weights.items())
        assert bits <= 4 * sum(weights.values())


def test_components_hold_the_outputs_and_the_errors():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 6, generator=generator)
    weight = torch.randn(4, 6, generator=generator)
    found = decompose(inputs, inputs @ weight.T)
    identity = found.components.T @ found.components
    assert torch.allclose(identity, torch.eye(4), atol=1e-5)
    assert torch.all(found.energies[:-1] >= found.energies[1:])
    assert float(found.energies.sum()) == pytest.approx(float(found.outputs.square().sum()), 1e-4)
    errors = error_by_component(found, weight, {"none": weight, "all": torch.zeros(4, 6)})
    assert torch.allclose(errors["all"], torch.ones(4, dtype=torch.float64), atol=1e-3)
    assert float(errors["none"].max()) == 0
    assert grouped(errors["all"])[0][1] == pytest.approx(1, abs=1e-3)


def test_leaving_out_more_leaves_more_error(bench):
    network = bench.pipeline.network
    names = output_layers(network)
    assert names
    found = gather(bench, names)
    assert set(found) == set(names)
    few, many, trailing, _ = remove(bench, found, (0.05, 0.5))
    assert few.energy < many.energy
    assert few.errors_db["latent_db"] > many.errors_db["latent_db"]
    assert trailing.energy < few.energy
    # The hooks are gone.
    latent = bench.sample(network, bench.pipeline.bits_at, 0, 0)
    assert torch.equal(latent, bench.references[0][0])
