"""Bits by sensitivity, under one budget or two."""

import pytest

from planner.allocate.sensitivity import (
    ActivationCosts,
    sensitive_activation_bits,
    sensitive_weight_bits,
)
from planner.allocate.vasmp import LayerStatistics
from schemas.manifest import CalibrationRecord, Source
from schemas.sensitivity import LayerSensitivity, SensitivityMap

NAMES = ("feed", "text", "tiny")
STATISTICS = [
    LayerStatistics("feed", 4000, 1.0),
    LayerStatistics("text", 4000, 1.0),
    LayerStatistics("tiny", 100, 1.0),
]
WORK = {"feed": 4_000_000, "text": 40_000, "tiny": 0}
"""The text layer is as large as the feed-forward, and a hundred times less work."""


def sensitivity(weights):
    return SensitivityMap(
        source=Source(files=()),
        variant="q",
        sampling=CalibrationRecord(images=1, crop_px=8, seed=0, steps=2, guidance=1.0, shift=3.0),
        cotangents=1,
        timesteps=(900.0, 100.0),
        layers={
            name: LayerSensitivity(weight=value, output=(1.0, 1.0), activation=(value, value))
            for name, value in zip(NAMES, weights, strict=True)
        },
    )


def weight_bits(work=None, weights=(1000.0, 1.0, 1.0), mean=4):
    return sensitive_weight_bits(
        STATISTICS, sensitivity(weights), mean, minimum_bits=2, maximum_bits=8, work=work
    )


def mean(bits, sizes):
    return sum(bits[name] * sizes[name] for name in bits) / sum(sizes.values())


def test_by_bytes_the_layer_that_matters_takes_bits_from_its_neighbours():
    bits = weight_bits()
    assert bits["feed"] > 4 > bits["text"]
    assert mean(bits, {layer.name: layer.parameters for layer in STATISTICS}) <= 4
    assert mean(bits, WORK) > 5  # which is more work than 4 bits everywhere


def test_by_bit_operations_the_mean_over_work_keeps_to_the_target_too():
    bits = weight_bits(WORK)
    assert mean(bits, WORK) <= 4
    assert mean(bits, {layer.name: layer.parameters for layer in STATISTICS}) <= 4
    assert bits["feed"] == 4  # it is all the work there is


def test_work_may_keep_to_a_mean_of_its_own():
    bits = sensitive_weight_bits(
        STATISTICS,
        sensitivity((1000.0, 1.0, 1.0)),
        6,
        minimum_bits=2,
        maximum_bits=8,
        work=WORK,
        mean_work_bits=4.1,
    )
    assert mean(bits, WORK) <= 4.1
    assert 5 < mean(bits, {layer.name: layer.parameters for layer in STATISTICS}) <= 6


def costs(by_step):
    layers = {"feed": by_step, "text": tuple(value / 50 for value in by_step)}
    return ActivationCosts((900.0, 100.0), layers)


@pytest.mark.parametrize("target", [3, 4, 4.5, 6])
def test_activations_keep_both_means(target):
    found = sensitive_activation_bits(costs((1.0, 40.0)), target)
    flat = [b for bits in found.values() for b in bits]
    assert sum(flat) / len(flat) <= target
    assert found["feed"][1] >= found["feed"][0]  # the late step matters more
    both = sensitive_activation_bits(costs((1.0, 40.0)), target, WORK)
    flat = [b for bits in both.values() for b in bits]
    assert sum(flat) / len(flat) <= target
    work = sum(WORK[name] * b for name, bits in both.items() for b in bits)
    assert work <= target * 2 * (WORK["feed"] + WORK["text"])
