"""A hundred mixed files, ten of them broken, in one batch, interrupted and continued."""

import random
import signal

import pytest
import pyvips

from tests.artifacts.make_pack import TINY, make_pack
from tests.forked_qrun import ForkedQrun
from tests.fuzz.kills.scenario import SAMPLING
from tests.hundred_files import broken_files, good_files, write_hundred_files

INTERRUPTIONS = 5
FAST = SAMPLING.model_copy(update={"steps": 1, "guidance": 1.0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, a tiny pack, and room for results."""
    found = tmp_path_factory.mktemp("hundred")
    write_hundred_files(found / "photos")
    config = TINY.model_copy(update={"num_layers": 1})
    make_pack(found / "tiny.qpack", config=config, changes={"sampling": FAST})
    return found


@pytest.fixture(scope="module")
def qrun():
    with ForkedQrun() as running:
        yield running


def command(folder, out):
    return ["upscale", folder / "photos", "--pack", folder / "tiny.qpack", "-o", out]


def content(out):
    """Everything in a folder of results, hidden files too."""
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def whole(folder, qrun):
    """Results of one run, and what it said."""
    code = qrun.run(command(folder, folder / "whole"), folder / "said")
    assert code == 6
    return content(folder / "whole"), (folder / "said").read_text()


def test_ninety_results_of_exact_size(folder, whole):
    results, _ = whole
    good = good_files()
    assert (len(good), len(results)) == (90, 90)
    sizes = []
    for result in results.values():
        image = pyvips.Image.new_from_buffer(result, "")
        sizes.append((image.height, image.width))
    assert sorted(sizes) == sorted((4 * height, 4 * width) for _, (height, width) in good.values())
    # Where two inputs differ in their extension alone, the result's name has it.
    assert {"0-deep-gray_x4.png", "1-rgb_png_x4.png", "1-rgb_jpg_x4.png"} <= set(results)


def test_ten_named_errors(whole):
    _, said = whole
    broken = broken_files()
    lines = [line for line in said.splitlines() if line.startswith("failed:")]
    assert (len(broken), len(lines)) == (10, 10)
    for name, (_, reason) in broken.items():
        assert sum(f"{name}:" in line and reason in line for line in lines) == 1, name
    assert "10 of 100 images failed" in said


@pytest.mark.parametrize("seed", [0])
def test_interrupted_five_times_and_continued_to_the_same_bytes(folder, qrun, whole, seed):
    results, _ = whole
    rng = random.Random(seed)
    out = folder / f"interrupted-{seed}"
    signals = [signal.SIGINT, signal.SIGKILL, *rng.choices((signal.SIGINT, signal.SIGKILL), k=3)]
    moments = sorted(rng.sample(range(1, len(results)), INTERRUPTIONS))
    for sent, moment in zip(signals, moments, strict=True):
        code = qrun.stop(command(folder, out), folder / "said", sent, moment, out)
        assert code == (130 if sent == signal.SIGINT else -signal.SIGKILL)
        finished = [name for name in content(out) if not name.startswith(".")]
        assert moment <= len(finished) < len(results)
        assert all(content(out)[name] == results[name] for name in finished)
    assert qrun.run(command(folder, out), folder / "said") == 6
    assert content(out) == results
