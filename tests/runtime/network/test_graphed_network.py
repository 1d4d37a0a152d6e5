"""Which pipelines sample through CUDA graphs, and that pictures do not depend on it."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from artifacts.pack.reader import open_pack
from runtime.backends import BACKENDS
from runtime.dit4sr.network import DiT4SR
from runtime.load import network_from_pack
from runtime.memory import with_smaller_tiles
from runtime.network.graphed_network import GraphedNetwork, can_be_graphed
from runtime.network.projection import PreparedInput, QuantizableLinear
from runtime.sampling.sampler import initial_noise, sample
from runtime.upscale import sample_latent
from schemas.errors import ResourceError
from tests.artifacts.make_pack import make_pack
from tests.runtime.cuda_graph_stand_in import install
from tests.runtime.tiny_pipeline import CONFIG, make_tiny_pipeline

CUDA = torch.device("cuda")
LAYER = "transformer_blocks.0.attn.to_q"


class Rounding(QuantizableLinear):
    """A layer whose bits show in its result; counts its calls, which a replay makes none of."""

    can_be_captured = True

    def __init__(self, name, plain):
        super().__init__()
        self.name = name
        self.plain = plain
        self.calls = 0

    def share_key(self, bits):
        return None

    def prepare(self, x, bits):
        self.calls += 1
        return PreparedInput((x * 2**bits).round() / 2**bits, None, None, bits, x.dtype)

    def apply_to(self, prepared):
        return self.plain(prepared.values)


def quantized():
    """A pipeline with one quantized layer; its six steps visit two columns."""
    tiny = make_tiny_pipeline()
    tiny.network.set_submodule(LAYER, Rounding(LAYER, tiny.network.get_submodule(LAYER)))
    return replace(
        tiny,
        bits_at=lambda timestep: {LAYER: 2 if timestep > 600 else 4},
        sampling=replace(tiny.sampling, steps=6),
    )


@pytest.fixture
def pipeline(monkeypatch):
    """Its device passes for one with graphs."""
    install(monkeypatch)
    return quantized()


def control(seed, width=20):
    return torch.randn(1, 16, 16, width, generator=torch.Generator().manual_seed(seed))


def layer(pipeline):
    return pipeline.network.get_submodule(LAYER)


def test_latents_are_the_plain_networks(pipeline):
    """A latent of two tiles, then one of another shape, then new ones of both."""
    plain = quantized()
    for seed, width in enumerate((20, 12, 20, 12)):
        found = sample_latent(pipeline, control(seed, width), pipeline.sampling)
        expected = sample(  # as calibration does
            plain.network,
            control(seed, width),
            plain.prompts,
            plain.sampling,
            noise=initial_noise((1, 16, 16, width), plain.sampling.seed),
            patch_size=plain.patch_size,
            bits_at=plain.bits_at,
        )
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # Every shape and column: once as it is, once to capture it. The plain one: at every step, both
    # tiles at once.
    assert layer(pipeline).calls == 2 * 2 * 2
    assert layer(plain).calls == 4 * 6


def test_graphs_live_as_long_as_the_pipeline(pipeline):
    assert isinstance(pipeline.velocity, GraphedNetwork)
    assert pipeline.velocity is pipeline.velocity
    # Another network or grid is another pipeline: nothing is carried over.
    other = replace(pipeline, network=make_tiny_pipeline().network)
    assert other.velocity is other.network


def arguments(pipeline):
    latent = control(0, 16)
    prompts = pipeline.prompts
    return (
        latent,
        latent,
        prompts.positive_embeds[None],
        prompts.positive_pooled[None],
        torch.tensor([500.0]),
    )


def test_whoever_watches_a_layer_sees_every_pass(pipeline):
    inputs = arguments(pipeline)
    with torch.inference_mode():
        for _ in range(3):
            pipeline.velocity(*inputs, {LAYER: 4})
        assert layer(pipeline).calls == 2
        seen = []
        hook = layer(pipeline).register_forward_pre_hook(lambda *_: seen.append(1))
        for _ in range(3):
            pipeline.velocity(*inputs, {LAYER: 4})
        assert len(seen) == 3
        hook.remove()
        pipeline.velocity(*inputs, {LAYER: 4})
    assert layer(pipeline).calls == 5


@pytest.mark.parametrize("bits", [None, {LAYER: 16}])
def test_unquantized_activations_are_not_captured(pipeline, bits):
    with torch.inference_mode():
        for _ in range(3):
            pipeline.velocity(*arguments(pipeline), bits)
    assert layer(pipeline).calls == 3
    assert not pipeline.release_graphs()


def test_missing_memory_takes_the_graphs_before_it_takes_the_tiles(pipeline, caplog):
    sample_latent(pipeline, control(0), pipeline.sampling)
    tried = []

    def run(tile):
        tried.append(tile)
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tile

    assert with_smaller_tiles(run, 64, 16, 2, "decoding", pipeline.release_graphs) == 32
    assert tried == [64, 64, 32]
    assert "tiles of 64; trying without CUDA graphs" in caplog.text
    calls = layer(pipeline).calls
    sample_latent(pipeline, control(1), pipeline.sampling)
    assert layer(pipeline).calls == calls + 6

    def never(_tile):
        raise MemoryError

    with pytest.raises(ResourceError, match="even with tiles of 16"):
        with_smaller_tiles(never, 16, 16, 2, "decoding", pipeline.release_graphs)


@pytest.mark.parametrize("backend", ["triton", "triton-packed"])
def test_networks_on_the_kernels_are_graphed_on_cuda_alone(tmp_path, backend):
    make_pack(tmp_path / "tiny.qpack")
    pack = open_pack(tmp_path / "tiny.qpack")
    cpu = torch.device("cpu")
    network = network_from_pack(pack, device=cpu, dtype=torch.float32, backend="reference")
    assert not can_be_graphed(network, CUDA)  # the reference waits for the device
    make_layer = BACKENDS[backend].make_layer
    for name in pack.layer_names[1:]:
        network.set_submodule(name, make_layer(pack.layer(name), pack.manifest.quantizer))
    assert not can_be_graphed(network, CUDA)
    first = pack.layer_names[0]
    network.set_submodule(first, make_layer(pack.layer(first), pack.manifest.quantizer))
    assert can_be_graphed(network, CUDA)
    assert not can_be_graphed(network, cpu)


def test_elsewhere_the_network_is_called_as_it_is():
    tiny = make_tiny_pipeline()
    assert tiny.velocity is tiny.network
    assert not tiny.release_graphs()
    assert not can_be_graphed(tiny.network, CUDA)  # nothing in it is quantized


class OnTheDevice(TorchDispatchMode):
    """Notes operations whose result lies outside the device: a capture has no room for them."""

    def __init__(self):
        super().__init__()
        self.elsewhere = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.elsewhere += [str(operation) for x in tensors if x.device.type != "cuda"]
        return result


def test_a_forward_pass_stays_on_the_device():
    """With tensors that have a device and no contents; reading a number off one is an error."""
    with FakeTensorMode(), torch.inference_mode(), torch.device("cuda"):
        network = DiT4SR(CONFIG)
        shapes = ((2, 16, 16, 12), (2, 16, 16, 12), (2, 5, 24), (2, 16))
        inputs = [torch.empty(shape) for shape in shapes]
        timesteps = torch.empty(1).expand(2)
        with OnTheDevice() as watch:
            network(*inputs, timesteps, None)
        assert watch.elsewhere == []
        with OnTheDevice() as watch:  # it does notice
            network(*inputs, timesteps.cpu().to("cuda"), None)
        assert watch.elsewhere
