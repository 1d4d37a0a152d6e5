"""The pipeline object: called as diffusers' pipelines are."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qdit4sr
from runtime.images.pixels import from_pixels
from runtime.prompts.named import NAMED_PROMPTS
from schemas.errors import ImageError, UsageError
from tests.planner.calibration_setup import make_setup

PIXELS = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)
RANKS = {"global_rank": 2, "local_rank": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with one prompt by name."""
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("source")
    setup = make_setup(folder)
    qdit4sr.build(setup.checkpoint, folder / "a.qpack", base=setup.base, **RANKS)
    own = load_file(folder / "a.qpack" / "prompts.safetensors")
    named = {f"other.{part}": -own[f"positive.{part}"] for part in ("embeds", "pooled")}
    save_file(named, base / NAMED_PROMPTS)
    return qdit4sr.load(folder / "a.qpack", base=base, backend="reference")


def test_it_gives_what_upscale_gives(pipe):
    (image,) = pipe(Image.fromarray(PIXELS), num_inference_steps=2).images
    assert image.size == (96, 80)
    assert np.array_equal(np.asarray(image), qdit4sr.upscale(pipe, PIXELS, steps=2))
    assert np.array_equal(np.asarray(image), qdit4sr.upscale(pipe.model, PIXELS, steps=2))
    assert pipe(PIXELS, num_inference_steps=2, return_dict=False)[0][0].size == (96, 80)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.astype(np.float32) / 255,
        from_pixels(PIXELS),
        from_pixels(PIXELS)[0],
        Image.fromarray(PIXELS),
        Image.fromarray(np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])),
    ],
    ids=["uint8", "float", "batch", "tensor", "PIL", "RGBA"],
)
def test_kinds_of_input_are_one_picture(pipe, image):
    found = np.asarray(pipe(image, num_inference_steps=1).images[0])
    assert np.array_equal(found, qdit4sr.upscale(pipe, PIXELS, steps=1))


def test_kinds_of_output(pipe):
    call = {"num_inference_steps": 1}
    (expected,) = pipe(PIXELS, **call).images
    array = pipe(PIXELS, output_type="np", **call).images
    assert (array.shape, array.dtype) == ((1, 80, 96, 3), np.float32)
    assert np.array_equal(np.round(array[0] * 255), np.asarray(expected))
    tensor = pipe(PIXELS, output_type="pt", **call).images
    assert torch.equal(tensor, torch.from_numpy(array).permute(0, 3, 1, 2))
    several = pipe([PIXELS, PIXELS[:16]], output_type="pt", **call).images
    assert [tuple(one.shape) for one in several] == [(3, 80, 96), (3, 64, 96)]
    assert pipe(PIXELS, scale=1, **call).images[0].size == (24, 20)


def test_generator_and_seed(pipe):
    def run(**options):
        return np.asarray(pipe(PIXELS, num_inference_steps=1, **options).images[0])

    first = run(generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    assert np.array_equal(run(generator=generator), first)
    assert not np.array_equal(run(generator=generator), first)  # it went on
    assert not np.array_equal(run(seed=1), run(seed=2))
    assert np.array_equal(run(seed=np.int64(2)), run(seed=2))
    several = [torch.Generator().manual_seed(seed) for seed in (5, 3)]
    images = pipe([PIXELS, PIXELS], num_inference_steps=1, generator=several).images
    assert np.array_equal(images[1], first)
    assert not np.array_equal(images[0], first)


def test_the_callback_sees_and_replaces_latents(pipe):
    seen = []

    def watch(owner, step, timestep, tensors):
        assert owner is pipe
        seen.append((step, timestep, tuple(tensors["latents"].shape)))
        return tensors

    call = {"num_inference_steps": 2, "output_type": "pt"}
    watched = pipe(PIXELS, callback_on_step_end=watch, **call).images
    assert [step for step, _, _ in seen] == [0, 1]
    assert seen[0][1] > seen[1][1]
    assert torch.equal(watched, pipe(PIXELS, **call).images)
    zeros = pipe(
        PIXELS, callback_on_step_end=lambda *a: {"latents": 0 * a[3]["latents"]}, **call
    ).images
    assert not torch.equal(zeros, watched)
    nothing = pipe(
        PIXELS,
        callback_on_step_end=lambda *a: None if not a[3] else pytest.fail("tensors"),
        callback_on_step_end_tensor_inputs=[],
        **call,
    ).images
    assert torch.equal(nothing, watched)


def test_prompts(pipe):
    def run(*images, **options):
        return pipe([*images], num_inference_steps=1, output_type="pt", **options).images

    own, other = run(PIXELS), run(PIXELS, prompt="other")
    assert not torch.equal(own, other)
    both = run(PIXELS, PIXELS, prompt=["other", "other"])
    assert torch.equal(both, torch.cat([other, other]))
    assert torch.equal(run(PIXELS), own)  # the pack's own is as it was
    with pytest.raises(UsageError, match="'othr' is no prompt"):
        run(PIXELS, prompt="othr")
    with pytest.raises(UsageError, match="2 prompts for 1 images"):
        run(PIXELS, prompt=["other", "other"])


def test_to_and_pickle(pipe):
    assert pipe.to("cpu") is pipe
    assert pipe.device == torch.device("cpu")
    assert pipe.dtype == torch.float32
    if not torch.cuda.is_available():
        with pytest.raises(UsageError):
            pipe.to("cuda")
        assert pipe.device == torch.device("cpu")
    with pytest.raises(TypeError, match="load the pack again"):
        pickle.dumps(pipe)
    assert "steps=" in repr(pipe)


@pytest.mark.parametrize(
    "wrong", [3, b"abc", PIXELS[..., 0], torch.zeros(4, 5, 5), torch.full((3, 2, 2), 9.0)]
)
def test_what_is_no_image(pipe, wrong):
    with pytest.raises(ImageError):
        pipe(wrong)


def test_a_shape_that_is_no_image_is_shown(pipe):
    with pytest.raises(ImageError, match=r"not \[20, 24\]"):
        pipe(PIXELS[..., 0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps 0: "),
        ({"guidance_scale": -1.0}, "guidance_scale -1"),
        ({"fidelity": 2.0}, "fidelity 2: "),
        ({"color_fix": "x"}, "color_fix x: "),
    ],
)
def test_errors_name_arguments_and_not_the_commands_options(pipe, options, named):
    with pytest.raises(UsageError) as caught:
        pipe(PIXELS, **options)
    assert str(caught.value).startswith(named)
    assert "--" not in str(caught.value) + caught.value.hint


def test_wrong_settings(pipe):
    for options in (
        {"output_type": "latent"},
        {"scale": 3},
        {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
        {"seed": "a"},
        {"generator": [torch.Generator(), torch.Generator()]},
        {"callback_on_step_end": lambda *a: {"latents": a[3]["latents"][..., 1:]}},
    ):
        with pytest.raises(UsageError):
            pipe(PIXELS, **options)
