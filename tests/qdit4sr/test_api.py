"""The facade: what the two commands do, called from Python."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import qdit4sr
from artifacts.pack.reader import open_pack
from runtime.images.pixels import from_pixels, to_pixels
from schemas.errors import ImageError, PackError, UsageError
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import run_qplan

RANKS = {"global_rank": 2, "local_rank": 2}
PIXELS = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def pack(setup, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "a.qpack"
    manifest = qdit4sr.build(setup.checkpoint, path, recipe="q-dit4sr", base=setup.base, **RANKS)
    assert manifest.recipe.name == "q-dit4sr"
    assert manifest.recipe.settings["global_rank"] == 2
    return path


@pytest.fixture(scope="module")
def model(pack):
    return qdit4sr.load(pack, backend="reference")


def test_pixels_in_pixels_out(model):
    done = []
    result = qdit4sr.upscale(model, PIXELS, steps=2, on_step=lambda *step: done.append(step))
    assert (result.shape, result.dtype) == ((80, 96, 3), np.uint8)
    assert done == [(1, 2), (2, 2)]
    assert np.array_equal(result, qdit4sr.upscale(model, PIXELS, steps=2))
    assert not np.array_equal(result, qdit4sr.upscale(model, PIXELS, steps=2, seed=1))


def test_a_file_is_the_same_picture(model, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    written = qdit4sr.upscale(model, tmp_path / "a.png", tmp_path / "b.png", steps=2)
    assert written is None
    returned = qdit4sr.upscale(model, str(tmp_path / "a.png"), steps=2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), returned)
    assert np.array_equal(returned, qdit4sr.upscale(model, PIXELS, steps=2))


def test_pixels_of_a_transparent_file_are_as_seen_on_white(model, tmp_path):
    alpha = np.zeros(PIXELS.shape[:2], np.uint8)
    alpha[:, 12:] = 255
    hidden = np.where(alpha[..., None] > 0, PIXELS, 77).astype(np.uint8)
    Image.fromarray(np.dstack([hidden, alpha])).save(tmp_path / "a.png")
    shown = np.where(alpha[..., None] > 0, PIXELS, 255).astype(np.uint8)
    assert np.array_equal(
        qdit4sr.upscale(model, tmp_path / "a.png", steps=2), qdit4sr.upscale(model, shown, steps=2)
    )


def test_wrong_inputs_are_typed_errors(model, pack, setup, tmp_path):
    with pytest.raises(PackError):
        qdit4sr.load(tmp_path / "nothing.qpack")
    with pytest.raises(UsageError, match="no model"):
        qdit4sr.load()
    with pytest.raises(UsageError, match=r"^steps 0: "):
        qdit4sr.upscale(model, PIXELS, steps=0)
    with pytest.raises(UsageError, match=r"^color_fix x: "):
        qdit4sr.upscale(model, PIXELS, color_fix="x")
    with pytest.raises(UsageError, match="returned, not written"):
        qdit4sr.upscale(model, PIXELS, tmp_path / "a.png")
    Image.fromarray(PIXELS).save(tmp_path / "in.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "in.png")
    for output in (tmp_path / "in.png", str(tmp_path / "link.png")):
        with pytest.raises(UsageError, match="is the input and would be replaced"):
            qdit4sr.upscale(model, tmp_path / "in.png", output)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "in.png")), PIXELS)
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path / 'none'}"):
        qdit4sr.upscale(model, tmp_path / "in.png", tmp_path / "none" / "out.png")
    with pytest.raises(ImageError, match="gone"):
        qdit4sr.upscale(model, tmp_path / "gone.png", tmp_path / "in.png")
    with pytest.raises(UsageError, match=r"y\.txt: results are written as"):
        qdit4sr.upscale(model, tmp_path / "a.png", tmp_path / "y.txt")
    with pytest.raises(UsageError, match="exists"):
        qdit4sr.build(setup.checkpoint, pack, base=setup.base, **RANKS)
    for wrong in (PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[:0]):
        with pytest.raises(ImageError, match="uint8"):
            qdit4sr.upscale(model, wrong)


def test_wider_activations_than_the_grids(pack, model):
    wider = qdit4sr.load(pack, backend="reference", activation_bits=8)
    widths = {bits for step in (0.0, 999.0) for bits in wider.model.bits_at(step).values()}
    assert widths == {8}
    assert not np.array_equal(qdit4sr.upscale(wider, PIXELS), qdit4sr.upscale(model, PIXELS))
    with pytest.raises(UsageError, match="no quantized layers"):
        qdit4sr.load(full_precision=pack, activation_bits=8)
    with pytest.raises(UsageError, match="1 to 8"):
        qdit4sr.load(pack, activation_bits=9)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_standard_probes_as_the_command_does(setup, tmp_path, mode):
    with mode():
        found = qdit4sr.build(
            setup.checkpoint, tmp_path / "a.qpack", base=setup.base, recipe="standard", **RANKS
        )
    options = ("--recipe", "standard", "--global-rank", 2, "--local-rank", 2)
    done = run_qplan(
        "build", setup.checkpoint, "--base", setup.base, *options, "-o", tmp_path / "b.qpack"
    )
    assert done.exit_code == 0, done.stderr
    assert found == open_pack(tmp_path / "b.qpack").manifest
    with pytest.raises(UsageError, match="exists"):
        qdit4sr.build(setup.checkpoint, tmp_path / "b.qpack", base=setup.base, recipe="standard")


def test_a_model_is_shown_in_a_line(model):
    assert "steps=3" in repr(model)
    assert len(repr(model)) < 400


def test_pixels_come_back_as_they_were():
    for pixels in (PIXELS, PIXELS[::-1, ::2]):
        assert np.array_equal(to_pixels(from_pixels(pixels)), pixels)


def test_the_version_is_the_distributions_and_the_import_is_light():
    code = "import sys, qdit4sr; print(qdit4sr.__version__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [qdit4sr.__version__, "False"]
