"""VOSR's network against a second one in numpy, and against its own layout."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from artifacts.family import Architecture
from artifacts.vosr.config import VOSR_05B, VOSR_14B
from artifacts.vosr.family import FAMILY
from artifacts.vosr.layout import ROTARY_COSINES, ROTARY_SINES, block_linears, tensor_shapes
from planner.build.network_probe import find_active_tensors, shared_inputs
from runtime.network.family import empty_network
from runtime.pipeline import Prompts
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.tiling import Tile
from runtime.vosr.network import Vosr
from runtime.vosr.sampling import features_of, sample
from schemas.errors import UsageError
from tests.artifacts.vosr.make_vosr import TINY, random_state
from tests.runtime.vosr import plain_forward

SMALL = TINY.model_copy(update={"resolution": 64})  # 4 x 4 tokens
SETTINGS = UpscaleSettings(
    steps=1, guidance=1.0, shift=1.0, tile=64, overlap=8, min_side_px=64, color_fix="none"
)


def network(config=SMALL, state=None):
    made = empty_network(Architecture(FAMILY, config, "os")).double()
    state = state or {n: t.double() for n, t in random_state(config).items()}
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)


def arrays(config=SMALL):
    return {name: tensor.double().numpy() for name, tensor in random_state(config).items()}


def inputs(rows, columns, *, channels=4, features=9, seed=3):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = (2, channels, 2 * rows, 2 * columns)
    return normal(*latent), normal(*latent), normal(2, features, 24)


@pytest.mark.parametrize("config", [TINY, SMALL, VOSR_05B, VOSR_14B])
def test_names_shapes_and_order_are_the_layouts(config):
    expected = tensor_shapes(config)
    del expected[ROTARY_COSINES], expected[ROTARY_SINES]  # only where a checkpoint brings them
    state = empty_network(Architecture(FAMILY, config, "os")).state_dict()
    assert list(expected.items()) == [(name, tuple(t.shape)) for name, t in state.items()]
    linears = {
        name: (layer.out_features, layer.in_features)
        for name, layer in empty_network(Architecture(FAMILY, config, "os")).named_modules()
        if isinstance(layer, torch.nn.Linear) and name.startswith("blocks.")
    }
    assert linears == block_linears(config)


@pytest.mark.parametrize("grid", [(4, 4), (2, 3), (5, 4)])
def test_equals_the_network_in_numpy(grid):
    """The training size, where the checkpoint's tables are read, a smaller and a larger one."""
    noisy, control, features = inputs(*grid)
    begins, ends = torch.tensor([1000.0, 700.0]).double(), torch.tensor([[0.0], [250.0]]).double()
    got = network()(noisy, control, features, ends, begins)
    for image, (t, r) in enumerate([(1.0, 0.0), (0.7, 0.25)]):
        parts = (part[image].numpy() for part in (noisy, control, features))
        expected = plain_forward.forward(arrays(), SMALL, *parts, t, r)
        # The rotation's angles are float32, as published: up to 4 * 6e-8 off here.
        np.testing.assert_allclose(got[image].numpy(), expected, rtol=0, atol=3e-6)
        assert np.abs(expected).std() > 0.1


def test_every_tensor_matters_and_nothing_else_is_read():
    architecture = Architecture(FAMILY, TINY, "os")
    parameters = set(tensor_shapes(TINY)) - set(FAMILY.rebuilt)
    assert find_active_tensors(architecture) == parameters


def test_keys_and_values_of_the_features_share_their_input():
    layers = [f"blocks.0.cross_attn.{name}_linear" for name in "qkv"]
    shared = shared_inputs(Architecture(FAMILY, TINY, "os"), layers)
    assert shared == dict(zip(layers, [layers[0], layers[1], layers[1]], strict=True))


def test_a_checkpoints_own_rotary_table_is_read_at_its_size_alone():
    state = {name: tensor.double() for name, tensor in random_state(SMALL).items()}
    own, other = network(), network(state=state | {ROTARY_SINES: -state[ROTARY_SINES]})
    ends, begins = torch.zeros(2, 1).double(), torch.full((2,), 1000.0).double()
    noisy, control, features = inputs(4, 4)
    arguments = (features, ends, begins)
    assert not torch.allclose(own(noisy, control, *arguments), other(noisy, control, *arguments))
    noisy, control, _ = inputs(4, 3)
    assert torch.equal(own(noisy, control, *arguments), other(noisy, control, *arguments))


def test_a_network_without_tables_computes_the_same():
    state = {name: tensor.double() for name, tensor in random_state(SMALL, table=False).items()}
    noisy, control, features = inputs(4, 4)
    arguments = (features, torch.zeros(2, 1).double(), torch.full((2,), 1000.0).double())
    got = network(state=state)(noisy, control, *arguments)
    torch.testing.assert_close(got, network()(noisy, control, *arguments), rtol=0, atol=1e-6)


class Devices(TorchDispatchMode):
    """Which devices the results of operations are on."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **options or {})
        found = result if isinstance(result, (list, tuple)) else [result]
        self.seen |= {x.device.type for x in found if isinstance(x, torch.Tensor)}
        return result


def test_a_pass_makes_nothing_on_the_cpu():
    """A CUDA graph can hold no copy from there; the meta device stands in for a GPU."""
    made = empty_network(Architecture(FAMILY, TINY, "os"))
    latent = torch.empty(1, 4, 8, 12, device="meta")
    others = (torch.empty(shape, device="meta") for shape in ((1, 16, 24), (1, 1), (1,)))
    with Devices() as devices:
        made(latent, latent, *others)
    assert devices.seen == {"meta"}


def test_inputs_that_do_not_fit():
    made = Vosr(TINY)
    features, end, time = torch.zeros(1, 4, 24), torch.zeros(1, 1), torch.zeros(1)
    with pytest.raises(ValueError, match="differ in shape"):
        made(torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 6), features, end, time)
    with pytest.raises(ValueError, match="does not divide"):
        made(torch.zeros(1, 4, 4, 5), torch.zeros(1, 4, 4, 5), features, end, time)


def prompts(features):
    end = torch.zeros(1, dtype=features.dtype)
    return Prompts(features, end, features, end)


@pytest.mark.parametrize("steps", [1, 3])
def test_sampling_equals_the_steps_in_numpy(steps):
    noisy, control, features = (part[:1] for part in inputs(4, 4))
    seen = []
    got = sample(
        network(),
        control,
        prompts(features[0]),
        dataclasses.replace(SETTINGS, steps=steps),
        noise=noisy,
        patch_size=2,
        bits_at=seen.append,
        progress=lambda done, of: seen.append((done, of)),
    )
    parts = (part[0].numpy() for part in (noisy, control, features))
    expected = plain_forward.sample(arrays(), SMALL, *parts, steps)
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=0, atol=5e-6)
    assert seen[:2] == [1000.0, (1, steps)]
    assert seen[-1] == (steps, steps)


def test_tiles_are_given_the_features_over_them():
    calls = []

    def spy(noisy, control, features, end, timestep, bits):
        calls.append((tuple(noisy.shape[-2:]), features[0, :, 0].tolist()))
        return torch.zeros_like(noisy)

    places = torch.arange(16.0)[:, None].expand(16, 24)
    settings = dataclasses.replace(SETTINGS, tile=8, overlap=0)
    latent = torch.zeros(1, 4, 16, 8)
    sample(spy, latent, prompts(places), settings, noise=latent, patch_size=2)
    assert calls == [((8, 8), list(range(8))), ((8, 8), list(range(8, 16)))]


def test_a_tile_is_never_without_features():
    features = torch.arange(4.0)[:, None]
    assert features_of(Tile(2, 6, 2, 2), features, 64, 8).flatten().tolist() == [1.0]
    assert features_of(Tile(0, 0, 64, 8), features, 64, 8).flatten().tolist() == [0, 1, 2, 3]


def test_guidance_is_refused():
    latent, features = torch.zeros(1, 4, 8, 8), torch.zeros(4, 24)
    settings = dataclasses.replace(SETTINGS, guidance=4.0)
    with pytest.raises(UsageError, match="--guidance 4: this network has its guidance built in"):
        sample(network(), latent, prompts(features), settings, noise=latent, patch_size=2)
