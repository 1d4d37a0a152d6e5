"""The sampling loop: against tensors of the published network, and against its own algebra."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors import safe_open

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.network import DiT4SR
from runtime.pipeline import Prompts
from runtime.sampling.sampler import FAITHFUL_SIGMA, first_step, initial_noise, sample
from runtime.sampling.settings import UpscaleSettings
from schemas.errors import PackError

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no golden tensors in {GOLDEN}, beside the checkout"
)
SETTINGS = UpscaleSettings(
    steps=4, guidance=8.0, shift=3.0, tile=64, overlap=24, min_side_px=128, color_fix="none"
)


class Golden:
    """One golden file, in one dtype."""

    def __init__(self, variant, dtype):
        with safe_open(GOLDEN / f"dit4sr_tiny_{variant}.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        self.tensors = tensors
        config = TransformerConfig.from_diffusers(json.loads(metadata["config"]))
        self.network = DiT4SR(config, metadata["variant"]).to(dtype)
        prefix = "state."
        self.network.load_state_dict(
            {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        )
        self.settings = UpscaleSettings(
            steps=int(metadata["steps"]),
            guidance=float(metadata["guidance"]),
            shift=float(metadata["shift"]),
            tile=64,
            overlap=24,
            min_side_px=128,
            color_fix="none",
        )
        embeds, pooled = tensors["in.prompt_embeds"], tensors["in.pooled"]
        self.prompts = Prompts(embeds[1], pooled[1], embeds[0], pooled[0])


def relative_error(actual, expected):
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


# float32: the bound of the shared notes. float64 is not exact either: diffusers computes the
# timestep's sines in float32, from phases up to 1000 whose last bit (6e-5) differs from one torch
# or processor to the next. Where it does not, float64 agrees to 5e-16; where it does, to 2e-6.
PRECISIONS = [(torch.float32, 1e-4), (torch.float64, 1e-5)]


@needs_golden
@pytest.mark.parametrize(("dtype", "bound"), PRECISIONS)
@pytest.mark.parametrize("variant", ["q", "r1"])
def test_forward_pass_equals_the_published_network(variant, dtype, bound):
    golden = Golden(variant, dtype)
    names = ("hidden_states", "control", "prompt_embeds", "pooled", "timestep")
    with torch.inference_mode():
        out = golden.network(*(golden.tensors[f"in.{name}"] for name in names))
    assert relative_error(out, golden.tensors["out.sample"]) < bound


@needs_golden
@pytest.mark.parametrize(("dtype", "bound"), PRECISIONS)
@pytest.mark.parametrize("variant", ["q", "r1"])
def test_loop_equals_the_published_network(variant, dtype, bound):
    golden = Golden(variant, dtype)
    asked = []
    latent = sample(
        golden.network,
        golden.tensors["in.control"][:1],
        golden.prompts,
        golden.settings,
        noise=golden.tensors["in.hidden_states"][:1],
        patch_size=2,
        bits_at=asked.append,  # returns None, as a full-precision network's does
    )
    assert relative_error(latent, golden.tensors["loop.latents"]) < bound
    assert asked == pytest.approx(golden.tensors["loop.timesteps"].tolist())


class Recorder:
    """A network whose velocity is a known function of its inputs; records its calls."""

    def __init__(self):
        self.calls = []
        self.latents = []

    def __call__(self, *inputs):
        noisy, control, embeds, _pooled, timestep, bits = inputs
        self.latents.append(noisy[-1:])
        self.calls.append((noisy.shape, embeds[:, 0, 0].tolist(), timestep.tolist(), bits))
        return control * embeds.mean((1, 2)).view(-1, 1, 1, 1) - 0.5 * noisy


@pytest.fixture
def prompts():
    return Prompts(
        positive_embeds=torch.full((3, 4), 2.0),
        positive_pooled=torch.zeros(5),
        negative_embeds=torch.full((3, 4), -1.0),
        negative_pooled=torch.zeros(5),
    )


def run(network, prompts, *, size=(8, 8), tokens_at_once=0, **changes):
    control = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(5))
    return sample(
        network,
        control,
        prompts,
        replace(SETTINGS, **changes),
        noise=initial_noise((1, 4, *size), seed=0),
        patch_size=2,
        tokens_at_once=tokens_at_once,
    )


def test_batch_order_is_negative_then_positive_and_timesteps_descend(prompts):
    network = Recorder()
    run(network, prompts)
    assert len(network.calls) == SETTINGS.steps
    assert all(embeds == [-1.0, 2.0] for _, embeds, _, _ in network.calls)
    timesteps = [timestep for _, _, timestep, _ in network.calls]
    assert all(negative == positive for negative, positive in timesteps)
    assert [t for t, _ in timesteps] == sorted((t for t, _ in timesteps), reverse=True)
    assert timesteps[0][0] == 1000


def test_one_step_follows_the_guided_velocity_to_the_end(prompts):
    """With one step sigma goes from 1 to 0, so the latent is noise - v, v written out by hand."""
    control = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = initial_noise((1, 4, 8, 8), seed=0)
    negative, positive = -1 * control - 0.5 * noise, 2 * control - 0.5 * noise
    expected = noise - (negative + 3 * (positive - negative))
    torch.testing.assert_close(run(Recorder(), prompts, steps=1, guidance=3.0), expected)


def test_guidance_of_one_skips_the_negative_half_and_gives_the_same(prompts):
    network = Recorder()
    alone = run(network, prompts, guidance=1.0)
    assert all(embeds == [2.0] for _, embeds, _, _ in network.calls)
    almost = run(Recorder(), prompts, guidance=1.0 + 1e-7)
    torch.testing.assert_close(alone, almost, rtol=1e-5, atol=1e-5)


def test_seed_decides_the_noise_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first = initial_noise((1, 4, 8, 8), seed=7)
    assert torch.equal(first, initial_noise((1, 4, 8, 8), seed=7))
    assert not torch.equal(first, initial_noise((1, 4, 8, 8), seed=8))
    assert torch.equal(state, torch.get_rng_state())
    assert abs(initial_noise((100_000,), seed=0).std().item() - 1) < 0.02


def test_pointwise_network_gives_the_same_in_tiles(prompts):
    network = Recorder()
    tiled = run(network, prompts, size=(20, 28), tile=8, overlap=4)
    assert {shape[-2:] for shape, *_ in network.calls} == {(8, 8)}
    torch.testing.assert_close(tiled, run(Recorder(), prompts, size=(20, 28)))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(("tiles_at_once", "batches"), [(1, [1] * 24), (5, [5] * 4 + [4])])
def test_tiles_in_batches_give_the_same(prompts, guidance, tiles_at_once, batches):
    network = Recorder()
    branches = 1 if guidance == 1 else 2
    of_tile = branches * (2 * 16 + 3)  # image and control tokens, and three of the prompt
    common = {"size": (20, 28), "tile": 8, "overlap": 4, "guidance": guidance, "steps": 2}
    batched = run(network, prompts, **common, tokens_at_once=tiles_at_once * of_tile + 1)
    assert [shape[0] for shape, *_ in network.calls] == [branches * n for n in batches] * 2
    torch.testing.assert_close(batched, run(Recorder(), prompts, **common))


def test_tile_larger_than_the_latent_is_one_call_a_step(prompts):
    network = Recorder()
    run(network, prompts, size=(6, 10), tile=64)
    assert [shape for shape, *_ in network.calls] == [(2, 4, 6, 10)] * SETTINGS.steps


def test_bits_of_the_timestep_reach_the_network_and_progress_is_told(prompts):
    network, seen = Recorder(), []
    sample(
        network,
        torch.zeros(1, 4, 4, 4),
        prompts,
        SETTINGS,
        noise=torch.zeros(1, 4, 4, 4),
        patch_size=2,
        bits_at=lambda timestep: {"layer": round(timestep)},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert all(bits == {"layer": round(timestep[0])} for _, _, timestep, bits in network.calls)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_latent_stays_float32_when_the_network_computes_in_bfloat16(prompts):
    seen = set()

    def network(noisy, control, *_):
        seen.add((noisy.dtype, control.dtype))
        return torch.full_like(noisy, 2.0**-12)

    noise = torch.ones(1, 4, 4, 4)
    latent = sample(
        network,
        torch.zeros(1, 4, 4, 4, dtype=torch.bfloat16),
        prompts.to(torch.device("cpu"), torch.bfloat16),
        SETTINGS,
        noise=noise,
        patch_size=2,
    )
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    # sigma falls by 1 in all; bfloat16 would have rounded every step back to 1.
    torch.testing.assert_close(latent, noise - 2.0**-12, rtol=0, atol=1e-6)


def test_latent_off_the_patch_grid_is_refused(prompts):
    with pytest.raises(ValueError, match="multiple of the patch size"):
        run(Recorder(), prompts, size=(7, 8))


def test_prompts_of_different_lengths_are_refused():
    with pytest.raises(PackError, match="differ in shape"):
        Prompts(torch.zeros(3, 4), torch.zeros(5), torch.zeros(2, 4), torch.zeros(5))


def test_fidelity_begins_with_the_control_latent_under_less_noise(prompts):
    """The steps that are left are the last ones of the schedule, at the same timesteps."""
    whole, part = Recorder(), Recorder()
    seen = []
    control = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = initial_noise((1, 4, 8, 8), seed=0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SETTINGS.shift)
    scheduler.set_timesteps(8)
    first = first_step(scheduler.sigmas[:-1], 1.0)
    assert scheduler.sigmas[first] == pytest.approx(FAITHFUL_SIGMA, abs=0.01)
    for network, fidelity in ((whole, 0.0), (part, 1.0)):
        sample(
            network,
            control,
            prompts,
            replace(SETTINGS, steps=8, fidelity=fidelity),
            noise=noise,
            patch_size=2,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert [call[2] for call in part.calls] == [call[2] for call in whole.calls][first:]
    assert seen[8:] == [(step, 8 - first) for step in range(1, 9 - first)]
    assert torch.equal(whole.latents[0], noise)
    sigma = scheduler.sigmas[first]
    torch.testing.assert_close(part.latents[0], sigma * noise + (1 - sigma) * control)


def test_fidelity_of_a_network_that_knows_the_way_ends_where_all_steps_end(prompts):
    """Along dx/dsigma = noise - control every start of the line leads to the control latent."""
    control = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    noise = initial_noise((1, 4, 8, 8), seed=0)

    def straight(noisy, control, *_):
        return noise.expand_as(noisy) - control

    for fidelity in (0.0, 0.5, 1.0):
        settings = replace(SETTINGS, steps=8, fidelity=fidelity)
        end = sample(straight, control, prompts, settings, noise=noise, patch_size=2)
        torch.testing.assert_close(end, control)


@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 0.86, 0.6, 0.01], [1.0, 0.99, 0.95, 0.8, 0.01]])
def test_the_first_step_moves_on_with_fidelity(sigmas):
    firsts = [first_step(torch.tensor(sigmas), step / 20) for step in range(21)]
    assert firsts[0] == 0
    assert firsts == sorted(firsts)
    assert sigmas[firsts[-1]] >= FAITHFUL_SIGMA
