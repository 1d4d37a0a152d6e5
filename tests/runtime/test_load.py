"""From a pack, or an unquantized checkpoint, to a running pipeline."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.dit4sr.layout import POSITION_TABLE
from artifacts.dit4sr.position_table import sincos_table
from artifacts.pack.reader import open_pack
from runtime.backends.reference import ReferenceLinear
from runtime.dit4sr.network import DiT4SR
from runtime.load import Unread, load_full_precision, load_pack, network_from_pack
from schemas.errors import CheckpointError, PackError, QPackError, UsageError
from tests.artifacts.make_pack import TINY, make_pack
from tests.runtime.tiny_pipeline import make_tiny_pipeline

CPU = torch.device("cpu")
FLOAT = torch.float32


def inputs(batch=1):
    generator = torch.Generator().manual_seed(3)
    latent = (batch, TINY.in_channels, 8, 12)
    return {
        "hidden_states": torch.randn(latent, generator=generator),
        "control": torch.randn(latent, generator=generator),
        "prompt_embeds": torch.randn(batch, 5, TINY.joint_attention_dim, generator=generator),
        "pooled": torch.randn(batch, TINY.pooled_projection_dim, generator=generator),
        "timestep": torch.full((batch,), 500.0),
    }


def decoded_network(pack):
    """The ordinary network with every weight decoded by the format's own decoder."""
    network = DiT4SR(pack.config, pack.variant)
    state = network.state_dict()
    state.update({name: pack.tensor(name).float() for name in pack.tensor_names})
    for name in pack.layer_names:
        layer = pack.layer(name)
        state[f"{name}.weight"], state[f"{name}.bias"] = layer.decode().float(), layer.bias.float()
    network.load_state_dict(state)
    return network.requires_grad_(False)


@pytest.mark.parametrize("variant", ["q", "r1"])
def test_network_of_a_pack_equals_the_decoded_one_on_unquantized_activations(tmp_path, variant):
    path = tmp_path / "model.qpack"
    make_pack(path, variant=variant)
    pack = open_pack(path)
    network = network_from_pack(pack, device=CPU, dtype=FLOAT)
    reference = decoded_network(pack)(**inputs())
    # Float32 all the way, through two blocks of two dozen layers.
    torch.testing.assert_close(network(**inputs()), reference, rtol=1e-3, atol=1e-3)


def test_a_position_table_of_other_values_is_held_as_stored_and_read(tmp_path):
    pipeline = write_checkpoint(tmp_path / "model")
    file = tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    table = sincos_table(pipeline.network.config)[:, torch.randperm(32 * 32)].bfloat16()
    save_file(load_file(file) | {POSITION_TABLE: table}, file)
    loaded = load_full_precision(tmp_path / "model", device=CPU, dtype=FLOAT).network
    held = loaded.get_buffer(POSITION_TABLE)
    assert held.dtype == torch.bfloat16
    assert torch.equal(held, table)
    middle = table.view(32, 32, -1)[13:18, 14:18].flatten(0, 1).float()
    assert torch.equal(loaded.pos_embed.positions(5, 4)[0], middle)


def test_the_grids_bits_reach_the_layers(tmp_path):
    path = tmp_path / "model.qpack"
    make_pack(path)
    pack = open_pack(path)
    network = network_from_pack(pack, device=CPU, dtype=FLOAT, backend="reference")
    names = {m.name for m in network.modules() if isinstance(m, ReferenceLinear)}
    assert names == set(pack.layer_names)
    plain = network(**inputs())
    errors = []
    for bits in (2, 4, 8):
        output = network(**inputs(), activation_bits=dict.fromkeys(names, bits))
        errors.append(float((output - plain).norm() / plain.norm()))
    assert errors[0] > errors[1] > errors[2] > 0
    missing = dict.fromkeys(names - {sorted(names)[0]}, 4)
    with pytest.raises(KeyError, match=sorted(names)[0]):
        network(**inputs(), activation_bits=missing)


def test_left_out_layers_stay_out_and_refuse_to_run(tmp_path):
    path = tmp_path / "model.qpack"
    make_pack(path)
    pack = open_pack(path)
    network = network_from_pack(pack, device=CPU, dtype=FLOAT)
    unread = [m for m in network.modules() if isinstance(m, Unread)]
    assert {m.name for m in unread} == {n.rpartition(".")[0] for n in pack.manifest.omitted}
    with pytest.raises(PackError, match="the network reads it"):
        unread[0](torch.zeros(1))


def test_a_transformer_alone_asks_for_a_base(tmp_path):
    path = tmp_path / "model.qpack"
    make_pack(path, companions=False, prompts=False)
    with pytest.raises(UsageError, match="no VAE") as caught:
        load_pack(path, device=CPU, dtype=FLOAT)
    assert "--base" in caught.value.hint


def write_checkpoint(folder):
    """A whole pipeline folder: the tiny pipeline's parts, as diffusers would write them."""
    pipeline = make_tiny_pipeline()
    transformer = folder / "transformer"
    transformer.mkdir(parents=True)
    state = {n: t.contiguous() for n, t in pipeline.network.state_dict().items()}
    save_file(state, transformer / "diffusion_pytorch_model.safetensors")
    config = pipeline.network.config.model_dump(mode="json")
    (transformer / "config.json").write_text(json.dumps({"_class_name": "DiT4SR", **config}))
    pipeline.vae.save_pretrained(folder / "vae")
    prompts = pipeline.prompts
    save_file(
        {
            "positive.embeds": prompts.positive_embeds,
            "positive.pooled": prompts.positive_pooled,
            "negative.embeds": prompts.negative_embeds,
            "negative.pooled": prompts.negative_pooled,
        },
        folder / "prompts.safetensors",
    )
    return pipeline


def test_full_precision_loads_a_pipeline_folder(tmp_path):
    pipeline = write_checkpoint(tmp_path / "model")
    loaded = load_full_precision(tmp_path / "model", device=CPU, dtype=FLOAT)
    for (name, mine), theirs in zip(
        pipeline.network.state_dict().items(), loaded.network.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    assert torch.equal(loaded.prompts.negative_pooled, pipeline.prompts.negative_pooled)
    assert loaded.bits_at(10.0) is None
    assert loaded.sampling.steps == 40  # DiT4SR's own, as the folder names none
    image = torch.rand(1, 3, 32, 32)
    mine = pipeline.vae.encode(image).latent_dist.mean
    torch.testing.assert_close(loaded.vae.encode(image).latent_dist.mean, mine)
    # The order in which processors convolve fastest; it changes no result but in its last bits.
    weight = loaded.vae.decoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_full_precision_runs_as_the_variant_it_is_told(tmp_path):
    write_checkpoint(tmp_path / "model")
    for asked, expected in ((None, "q"), ("r1", "r1")):
        loaded = load_full_precision(tmp_path / "model", variant=asked, device=CPU, dtype=FLOAT)
        assert loaded.network.variant == expected
    with pytest.raises(UsageError, match="no variant 'r2' of DiT4SR"):
        load_full_precision(tmp_path / "model", variant="r2", device=CPU, dtype=FLOAT)


def test_full_precision_needs_prompts_and_a_whole_autoencoder(tmp_path):
    write_checkpoint(tmp_path / "model")
    vae_file = tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(vae_file)
    state.pop(sorted(state)[0])
    save_file(state, vae_file)
    with pytest.raises(CheckpointError, match=r"lacks decoder\.conv_in\.bias"):
        load_full_precision(tmp_path / "model", device=CPU, dtype=FLOAT)
    shutil.rmtree(tmp_path / "model")
    write_checkpoint(tmp_path / "model")
    (tmp_path / "model" / "prompts.safetensors").unlink()
    with pytest.raises(QPackError, match="no prompt embeddings"):
        load_full_precision(tmp_path / "model", device=CPU, dtype=FLOAT)


def test_a_pack_of_another_network_is_refused_as_companion(tmp_path):
    write_checkpoint(tmp_path / "model")
    make_pack(tmp_path / "other.qpack")
    with pytest.raises(UsageError, match="different shapes"):
        load_full_precision(
            tmp_path / "model", pack=tmp_path / "other.qpack", device=CPU, dtype=FLOAT
        )
