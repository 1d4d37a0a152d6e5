"""A tiny comparison of the bundled model: one crop, one noise, two steps."""

import json

import pytest
import torch

from benchmarks.quality import __main__ as command
from benchmarks.quality import layers, measure, packs
from benchmarks.quality.compare import Comparison
from benchmarks.quality.measure import Sampling, make_bench
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.report import analyse, to_json, to_markdown
from benchmarks.quality.rows import recipe_rows
from benchmarks.quality.run import command_line
from benchmarks.quality.store import RowStore
from runtime.bench.workload import Ranks

SAMPLING = Sampling(
    command.MODEL, crops=1, crop_px=128, seeds=1, steps=2, guidance=1.0, pictures=False
)


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(scope="module")
def bench(work):
    return make_bench(SAMPLING, work, quiet)


@pytest.fixture
def comparison(bench, tmp_path):
    """A comparison, and the lines it says."""
    maker = PackMaker(SAMPLING.model, tmp_path, steps=2, guidance=1.0)
    said = []
    found = Comparison(bench, maker, RowStore(tmp_path / "rows"), said.append)
    return found, said


def row(target, name):
    return next(r for r in recipe_rows(target, Ranks(4, 2), second=False) if r.name == name)


def test_the_unquantized_network_is_its_own_reference(bench):
    network = bench.pipeline.network
    values = measure.measure(bench, network, bench.pipeline.bits_at, quiet)
    assert "latent_db" in values
    assert "octave_fine_db" in values
    assert all(found == [[200.0]] for found in values.values())
    other = bench.sample(network, bench.pipeline.bits_at, 0, 1)
    assert not torch.equal(other, bench.references[0][0])  # another noise


def test_two_rows_are_measured_reported_and_not_measured_again(comparison, monkeypatch):
    found, said = comparison
    rows = [row("W4A4", "rtn"), row("W4A4", "quarot")]
    contents = found.run(rows)
    for name, content in contents.items():
        # A network that had nothing to do with the model would be at about 0 dB.
        assert 3 < content["values"]["latent_db"][0][0] < 60, name
        assert 4 < content["stored_bits"] < 4.2
        assert content["reached"] == {"weight_bits": 4, "activation_bits": 4}
    assert not list(found.maker.work.glob("*.qpack"))  # packs go when they are measured

    monkeypatch.setattr(measure, "measure", None)  # calling it would fail
    assert found.run(rows) == contents
    assert said[-1].endswith("measured before")
    assert found.known([*rows, row("W4A4", "hsvd")]) == contents

    measured = analyse(rows, contents, {})
    difference = measured[0].differences["quarot"]["latent_db"].mean
    a, b = (contents[r.full_name]["values"]["latent_db"][0][0] for r in rows)
    assert difference == pytest.approx(a - b)
    result = to_json(measured, {}, SAMPLING.key_parts())
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(result["rows"]) == {"W4A4/rtn", "W4A4/quarot"}
    text = to_markdown(
        measured,
        {},
        SAMPLING.key_parts(),
        network="dit4sr-mini",
        ranks=Ranks(4, 2),
        second=Ranks(32, 8),
        command="the command",
        plots=[("a.png", "a plot")],
        notes=None,
    )
    assert "<!-- notes -->" in text
    assert "![a plot](a.png)" in text
    assert f"{difference:+.2f}" in text


def test_a_run_killed_between_rows_goes_on_with_the_next(comparison, monkeypatch):
    found, said = comparison
    real, calls = measure.measure, []

    def dies_at_the_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(measure, "measure", dies_at_the_second)
    rows = [row("W4A4", "rtn"), row("W4A4", "quarot")]
    with pytest.raises(KeyboardInterrupt):
        found.run(rows)
    assert set(found.known(rows)) == {"W4A4/rtn"}

    said.clear()
    assert set(found.run(rows)) == {"W4A4/rtn", "W4A4/quarot"}
    assert len(calls) == 3  # the finished row was not run a second time
    assert "measured before" in said[0]


def test_one_network_under_two_names_is_measured_once(comparison, monkeypatch):
    found, _ = comparison
    real, calls = measure.measure, []
    monkeypatch.setattr(measure, "measure", lambda *a: calls.append(a) or real(*a))
    # From 6 activation bits on VaTMP is off, so leaving it out leaves out nothing.
    rows = [row("W4A6", "q-dit4sr-no-vatmp"), row("W4A6", "q-dit4sr")]
    contents = found.run(rows)
    assert len(calls) == 1
    first, second = contents.values()
    assert second["same_as"] == "W4A6/q-dit4sr-no-vatmp"
    assert second["values"] == first["values"]
    text = to_markdown(
        analyse(rows, contents, {}),
        {},
        SAMPLING.key_parts(),
        network="dit4sr-mini",
        ranks=Ranks(4, 2),
        second=Ranks(32, 8),
        command="",
        plots=[],
        notes="By hand.",
    )
    assert "`q-dit4sr` is the same network as `q-dit4sr-no-vatmp`" in text
    assert "<!-- notes -->\nBy hand.\n" in text


def test_a_row_is_stored_under_what_it_was_measured_with(comparison):
    found, _ = comparison
    key = found.key(row("W4A4", "rtn"))
    assert key != found.key(row("W4A6", "rtn"))
    assert key != found.key(row("W4A4", "quarot"))
    found.sampling = {**found.sampling, "steps": 3}
    assert key != found.key(row("W4A4", "rtn"))


def test_layers_are_compared_on_the_same_inputs(bench, tmp_path):
    maker = PackMaker(SAMPLING.model, tmp_path, steps=2, guidance=1.0)
    rows = [row("W4A4", "quarot"), row("W8A8", "quarot")]
    evidence = layers.gather(bench, maker, rows, images=1)
    coarse, fine = (evidence.rows[r.full_name] for r in rows)
    assert set(coarse) == set(fine) == set(evidence.mean_squares)
    for name, parts in coarse.items():
        # Each bit is worth about 6 dB in the input and in the weight.
        assert fine[name]["input"] - parts["input"] > 15, name
        assert fine[name]["weight"] - parts["weight"] > 15, name
        assert parts["output"] < parts["output_weights"], name
        assert parts["output"] < parts["output_activations"], name
    assert all(len(v) == 2 and min(v) > 0 for v in evidence.mean_squares.values())
    assert not bench.pipeline.network.transformer_blocks[0].attn.to_q._forward_hooks
    text = layers.to_markdown(evidence, {r.full_name: r.label for r in rows}, "the command")
    assert "feed-forward out, text" in text


def test_pictures_are_measured_too(bench):
    pytest.importorskip("pyiqa")
    metrics = measure.PictureMetrics()
    picture = bench.reference_picture(0, 0)
    truth = bench.cases[0].truth
    assert picture.shape == truth.shape
    same = metrics.to_reference(picture, picture)
    assert same["reference_psnr_db"] == 200
    assert same["reference_fsim"] == pytest.approx(1, abs=1e-5)
    assert same["reference_gmsd"] == pytest.approx(0, abs=1e-6)
    noise = 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    near, far = (metrics.to_truth((truth + f * noise).clamp(0, 1), truth) for f in (1, 4))
    assert near["truth_psnr_db"] > far["truth_psnr_db"]
    assert near["truth_fsim"] > far["truth_fsim"]


def test_command_lists_its_rows_and_says_what_it_cannot_do(capsys):
    assert command.main(["--list", "--rows", "^W4A4/(rtn|quarot)$"]) == 0
    assert capsys.readouterr().out.split() == ["W4A4/rtn", "W4A4/quarot"]
    assert command.main(["--quick", "--rows", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--ranks", "4"])
    assert "4+2" in capsys.readouterr().err


def test_the_documented_command_says_nothing_of_the_machine():
    given = ["--work", "/somewhere/else", "--out", "docs/results", "--threads=1", "--report"]
    arguments = command.parse(given)
    assert command_line(arguments) == "python -m benchmarks.quality --out docs/results"


class ProbeError(Exception):
    """Stands for a probe: what it was asked for is all that matters here."""


def test_photos_are_what_the_row_of_photos_is_probed_with(tmp_path, monkeypatch):
    def probe(_checkpoint, _variant, _base, settings, **_where):
        raise ProbeError(settings)

    monkeypatch.setattr(packs, "probe_checkpoint", probe)
    maker = PackMaker(SAMPLING.model, tmp_path, steps=2, guidance=1.0)
    for asked, folder, pictures in (
        (row("W4A4", "standard-photos"), maker.images, 32),
        (row("W4A4", "standard"), None, 2),
    ):
        with pytest.raises(ProbeError) as found, maker.pack(asked):
            pass
        settings = found.value.args[0]
        assert (settings.folder, settings.pictures) == (folder, pictures)
