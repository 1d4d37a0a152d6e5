"""Named prompts."""

import numpy as np
import pytest
import torch

from training.prompts import NAMES, PROMPTS, PromptTable, draw_prompt


@pytest.fixture
def table():
    return PromptTable.draw(0, width=64, pooled_width=32)


def test_meaning_is_in_the_tokens_alone(table):
    assert (table.pooled == table.pooled[0]).all()
    for first in range(len(PROMPTS)):
        for second in range(first):
            assert not torch.equal(table.embeds[first], table.embeds[second])


def test_values_survive_bfloat16_and_depend_on_the_seed(table):
    assert torch.equal(table.embeds.bfloat16().float(), table.embeds)
    again = PromptTable.draw(0, width=64, pooled_width=32)
    assert torch.equal(again.embeds, table.embeds)
    assert not torch.equal(PromptTable.draw(1, width=64, pooled_width=32).embeds, table.embeds)


def test_a_pair_has_a_packs_names(table):
    pair = table.pair("sharp", "smooth")
    assert set(pair) == {
        f"{side}.{part}" for side in ("positive", "negative") for part in ("embeds", "pooled")
    }
    assert torch.equal(pair["positive.embeds"], table.embeds[NAMES.index("sharp")])


def test_prompts_name_what_they_ask_for():
    from skimage.data import chelsea

    truth = np.asarray(chelsea()[:96, :96], np.float32) / 255
    degraded = np.full_like(truth, 0.5)

    def detail(image):
        return np.abs(np.diff(image, axis=1)).mean()

    targets = {prompt.name: prompt.target(truth, degraded) for prompt in PROMPTS}
    assert detail(targets["sharp"]) > detail(targets["natural"]) > detail(targets["smooth"])
    assert np.array_equal(targets["natural"], truth)
    assert np.array_equal(targets["low quality"], degraded)


def test_draws_follow_the_shares():
    rng = np.random.default_rng(0)
    drawn = np.bincount([draw_prompt(rng) for _ in range(4000)]) / 4000
    assert drawn == pytest.approx([prompt.share for prompt in PROMPTS], abs=0.03)
