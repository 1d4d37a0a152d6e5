"""A pack's network as one of diffusers' models."""

import copy
import pickle

import pytest
import torch
from diffusers import ModelMixin

from artifacts.pack.reader import open_pack
from qdit4sr.pipeline import UpscalePipeline
from qdit4sr.transformer import QuantizedTransformer
from runtime.load import load_pack
from schemas.errors import PackError, UsageError
from tests.artifacts.make_pack import TINY, make_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "a.qpack"
    make_pack(path)
    return path


@pytest.fixture(scope="module")
def model(pack):
    return QuantizedTransformer.from_pretrained(
        pack, torch_dtype=torch.float32, device="cpu", backend="reference"
    )


def inputs(batch=2):
    generator = torch.Generator().manual_seed(0)
    latent = (batch, TINY.in_channels, 8, 8)
    return {
        "hidden_states": torch.randn(latent, generator=generator),
        "control": torch.randn(latent, generator=generator),
        "encoder_hidden_states": torch.randn(
            batch, 5, TINY.joint_attention_dim, generator=generator
        ),
        "pooled_projections": torch.randn(batch, TINY.pooled_projection_dim, generator=generator),
    }


@torch.inference_mode()
def test_it_computes_with_the_bits_of_its_timestep(pack, model):
    pipeline = load_pack(pack, device=torch.device("cpu"), dtype=torch.float32, backend="reference")
    given = inputs()
    expected = pipeline.network(
        given["hidden_states"],
        given["control"],
        given["encoder_hidden_states"],
        given["pooled_projections"],
        torch.full((2,), 700.0),
        pipeline.bits_at(700.0),
    )
    assert isinstance(model, ModelMixin)
    assert torch.equal(model(**given, timestep=torch.tensor([700.0, 700.0])).sample, expected)
    assert torch.equal(model(**given, timestep=700.0, return_dict=False)[0], expected)
    with pytest.raises(ValueError, match="one timestep"):
        model(**given, timestep=torch.tensor([700.0, 600.0]))


def test_its_configuration_is_the_networks(pack, model):
    assert model.config.num_layers == TINY.num_layers
    assert model.config.variant == open_pack(pack).variant
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_moving_loads_the_pack_again_and_casting_is_refused(model, monkeypatch):
    assert model.to("cpu") is model
    assert model.to(torch.float32) is model
    with pytest.raises(UsageError, match=r"not cast to torch\.float16"):
        model.to(torch.float16)
    for cast in (model.half, model.bfloat16, model.double, lambda: model.type(torch.float16)):
        with pytest.raises(UsageError, match="not cast to"):
            cast()
    assert model.float() is model.cpu() is model
    assert model.dtype == torch.float32
    asked = []

    def loaded(_cls, **arguments):
        asked.append(arguments)
        return model

    monkeypatch.setattr(QuantizedTransformer, "from_pretrained", classmethod(loaded))
    assert model.to("cuda") is model
    assert (asked[0]["device"], asked[0]["backend"]) == ("cuda", "reference")


def test_what_is_refused_says_why(model, tmp_path):
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(model)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.deepcopy(model)
    with pytest.raises(UsageError, match="kept as its pack"):
        model.save_pretrained(tmp_path)
    with pytest.raises(PackError):
        QuantizedTransformer.from_pretrained(tmp_path)


@torch.inference_mode()
def test_a_table_says_what_it_lacks(tmp_path):
    make_pack(tmp_path / "t.qpack", modulation="table")
    opened = open_pack(tmp_path / "t.qpack")
    pooled = opened.prompt_header.read("positive.pooled")
    model = QuantizedTransformer.from_pretrained(
        tmp_path / "t.qpack", torch_dtype=torch.float32, device="cpu", backend="reference"
    )
    first = opened.manifest.modulation.timesteps[0]
    given = inputs() | {"pooled_projections": pooled.float().expand(2, -1)}
    assert bool(model(**given, timestep=first).sample.isfinite().all())
    with pytest.raises(UsageError, match="modulations for timesteps"):
        model(**given, timestep=first - 1)
    with pytest.raises(UsageError, match="its own pooled prompts"):
        model(**inputs(), timestep=first)


def test_a_pipelines_network_moves_with_it(pack):
    pipe = UpscalePipeline(pack=pack, device="cpu", backend="reference")
    transformer = pipe.transformer
    assert transformer.network is pipe.model.network
    with pytest.raises(UsageError, match="a pipeline's"):
        transformer.to("cuda")
