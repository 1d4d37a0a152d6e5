"""The probe decides, not a habit: networks that differ in what their text does get other grids."""

import re
from statistics import mean

import pytest

from artifacts.pack.reader import open_pack
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import run_qplan

INTO_THE_PICTURE = re.compile(r"attn\.add_v_proj\.")
"""What carries the text stream over to the image tokens: its values, while its keys stay."""
TEXT_LAYERS = re.compile(r"ff_context|attn\.(add_q_proj|to_add_out)")
"""Layers of the text stream; they reach the picture through the others of later blocks alone."""


def grid_of(folder, base, text_scale):
    """The grid of a network whose text reaches the picture by so much."""
    state = {
        name: tensor * text_scale if INTO_THE_PICTURE.search(name) else tensor
        for name, tensor in random_state().items()
    }
    folder.mkdir()
    checkpoint = write_folder(folder / "tiny", state)
    pack = folder / "a.qpack"
    # Modulations are kept: a table would give the other layers bits, in both networks.
    options = ("--modulation", "weights", "--global-rank", 2, "--local-rank", 0)
    done = run_qplan("build", checkpoint, "--base", base, *options, "-o", pack)
    assert done.exit_code == 0, done.stderr
    assert open_pack(pack).manifest.recipe.name == "standard"
    return open_pack(pack)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    setup = make_setup(folder)
    return {
        name: grid_of(folder / name, setup.base, scale)
        for name, scale in (("matters", 100.0), ("does not", 1e-3))
    }


def text_bits(pack, which):
    layers = pack.bit_grid.layers
    found = [name for name in layers if TEXT_LAYERS.search(name)]
    assert found
    return [which(layers[name]) for name in found]


def test_the_text_stream_has_bits_where_it_matters(packs):
    weights = {name: mean(text_bits(p, lambda x: x.weight_bits)) for name, p in packs.items()}
    steps = {
        name: mean(text_bits(p, lambda x: mean(x.activation_bits))) for name, p in packs.items()
    }
    assert weights["matters"] > weights["does not"] + 1
    assert steps["matters"] > steps["does not"] + 0.5
    # Where it does not matter, it gets the fewest that there are.
    assert weights["does not"] < 2.5
