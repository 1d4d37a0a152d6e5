"""Which layers are smoothed: those where a vector saves more than its bits would elsewhere."""

from dataclasses import replace

from planner.allocate.sensitivity import activation_costs, weight_costs
from planner.allocate.smoothed_layers import Balance, layers_to_smooth, with_smoothing
from planner.allocate.table_share import NO_TABLE, VECTOR_BITS, TableShare
from planner.allocate.vasmp import LayerStatistics
from planner.allocate.weight_bits import weight_bits
from planner.recipes import recipe_settings
from planner.target import parse_target
from schemas.manifest import CalibrationRecord, Source
from schemas.sensitivity import LayerSensitivity, SensitivityMap

INPUTS, WEIGHTS = 64, 64 * 64
NAMES = ("query", "value", "feed", "text")
OWNERS = {"query": "query", "value": "query", "feed": "feed", "text": "text"}
W4A4 = recipe_settings("standard", parse_target("W4A4"), weight_rounding="nearest")


def statistics(variance=1.0):
    return [LayerStatistics(name, WEIGHTS, variance) for name in NAMES]


def balance(**remaining):
    return Balance(
        OWNERS, dict.fromkeys(NAMES, INPUTS), {name: remaining.get(name, 1.0) for name in NAMES}
    )


def sensitivity(**values):
    return SensitivityMap(
        source=Source(files=()),
        variant="q",
        sampling=CalibrationRecord(images=1, crop_px=8, seed=0, steps=2, guidance=1.0, shift=3.0),
        cotangents=1,
        timesteps=(900.0, 100.0),
        layers={
            name: LayerSensitivity(
                weight=values.get(name, 1.0),
                output=(1.0, 1.0),
                activation=(values.get(name, 1.0),) * 2,
            )
            for name in NAMES
        },
    )


def chosen(remaining, sensitive=None, settings=W4A4, table=NO_TABLE):
    return layers_to_smooth(
        statistics(), balance(**remaining), settings, sensitivity(**(sensitive or {})), table
    )


def test_layers_that_gain_are_smoothed_and_those_that_gain_nothing_are_not():
    assert chosen({"feed": 0.3}) == {"feed"}
    assert chosen({}) == frozenset()


def test_layers_of_one_input_are_smoothed_together():
    assert chosen({"query": 0.3, "value": 0.3}) == {"query", "value"}


def test_a_layer_that_hardly_matters_is_not_worth_its_vector():
    gains = dict.fromkeys(NAMES, 0.5)
    assert chosen(gains) == frozenset(NAMES)
    assert chosen(gains, {"text": 1e-6}) == {"query", "value", "feed"}


def test_with_gptq_activations_alone_gain():
    # Activations of so many bits hardly err: what there is to gain is the weights'.
    gains = dict.fromkeys(NAMES, 0.5)
    wide = replace(W4A4, target=parse_target("W2.5A8"))
    assert chosen(gains, settings=wide)
    assert not chosen(gains, settings=replace(wide, weight_rounding="gptq"))


def test_a_gain_smaller_than_that_of_the_vectors_bits_is_left():
    # Half a bit per weight: about 3 dB of the weight's error, and as many of the activations' are
    # saved for nothing.
    assert VECTOR_BITS * INPUTS / WEIGHTS == 0.5
    assert chosen(dict.fromkeys(NAMES, 0.97)) == frozenset()


def test_vectors_leave_room_for_the_fewest_bits():
    gains = dict.fromkeys(NAMES, 0.1)
    lowest = replace(W4A4, target=parse_target("W2A4"))
    assert chosen(gains, settings=lowest) == frozenset()
    # Bits are left for one vector alone.
    table = TableShare(0, 0)
    nearly = replace(W4A4, target=parse_target("W2.2A4"))
    assert len(chosen(dict.fromkeys(("feed", "text"), 0.1), settings=nearly, table=table)) == 1


def test_the_vectors_bits_are_taken_from_the_codes():
    smoothed = frozenset(("feed", "text"))
    vectors = balance().stored_bits(sorted(smoothed))
    assert vectors == 2 * VECTOR_BITS * INPUTS
    for target in ("W4A4", "W3.7A4"):
        settings = replace(W4A4, target=parse_target(target))
        bits = weight_bits(statistics(), settings, sensitivity(feed=9.0), beside=vectors)
        stored = sum(WEIGHTS * width for width in bits.values()) + vectors
        assert stored <= settings.target.weight_bits * 4 * WEIGHTS
        assert stored > settings.target.weight_bits * 4 * WEIGHTS - WEIGHTS


def test_smoothed_layers_cost_what_is_predicted_to_remain():
    found = with_smoothing(statistics(), balance(feed=0.25, text=0.5), {"feed"})
    assert [layer.variance for layer in found] == [1.0, 1.0, 0.25, 1.0]
    sensitive = sensitivity()
    assert weight_costs(found, sensitive)["feed"] == WEIGHTS / 4
    assert activation_costs(found, sensitive).layers["feed"] == (WEIGHTS / 4,) * 2
