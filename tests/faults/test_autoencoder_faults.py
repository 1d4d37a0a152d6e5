"""Damaged autoencoders, in a pack or a base folder: exit code 3 before anything is allocated."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.autoencoder.files import open_autoencoder
from artifacts.pack.reader import open_pack, verify_pack
from runtime.load import load_vae
from schemas.errors import CheckpointError, PackError
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.artifacts.make_pack import write_autoencoder
from tests.artifacts.tamper import reseal
from tests.planner.run_qplan import assert_fails, run_qplan

CONFIG = "vae/config.json"
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
WRONG_FIELDS = [
    ("norm_num_groups", 0),
    ("norm_num_groups", 3),
    ("block_out_channels", []),
    ("block_out_channels", [2, 0]),
    ("block_out_channels", [2, "2"]),
    ("block_out_channels", [2] * 9),
    ("block_out_channels", [2] * 300_000),
    ("block_out_channels", 2),
    ("down_block_types", ["DownEncoderBlock2D"]),
    ("down_block_types", ["AttnDownEncoderBlock2D"] * 2),
    ("up_block_types", None),
    ("layers_per_block", 20_000),
    ("layers_per_block", 0),
    ("layers_per_block", True),
    ("scaling_factor", None),
    ("scaling_factor", 0),
    ("scaling_factor", -1.0),
    ("scaling_factor", 1e308),
    ("scaling_factor", 1e-300),
    ("scaling_factor", "1.5"),
    ("shift_factor", 1e308),
    ("shift_factor", "0"),
    ("in_channels", 4),
    ("out_channels", 1),
    ("act_fn", "eval"),
    ("latent_channels", 2**40),
    ("latent_channels", 5),
    ("latents_mean", [0.0]),
    ("sample_size", 10**30),
    ("use_quant_conv", 1),
    ("mid_block_add_attention", None),
    ("surprise", 1),
]


def edit_config(folder, **changes):
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_what_the_others_damage_is_sound(pack):
    verify_pack(pack)
    load_vae(pack / "vae", torch.device("cpu"), latent_channels=4)


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
def test_a_wrong_field_is_named(pack, field, value):
    edit_config(pack, **{field: value})
    reseal(pack)
    with pytest.raises(PackError, match=rf"vae/config\.json: .*{field}"):
        open_pack(pack)
    with pytest.raises(CheckpointError, match=rf"vae/config\.json: .*{field}"):
        load_vae(pack / "vae", torch.device("cpu"), latent_channels=4)


@pytest.mark.parametrize("content", ["[]", "4", "null", "{", '{"_class_name": "AutoencoderDC"}'])
def test_something_else_in_place_of_the_configuration(pack, content):
    (pack / CONFIG).write_text(content)
    reseal(pack)
    with pytest.raises(PackError, match=r"vae/config\.json"):
        open_pack(pack)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("decoder.conv_in.bias"), r"lacks decoder\.conv_in\.bias"),
        (lambda t: t.update(extra=torch.ones(1)), "does not belong there: extra"),
        (
            lambda t: t.update({"encoder.conv_in.weight": torch.ones(2, 3, 1, 9)}),
            r"encoder\.conv_in\.weight is F32 \[2, 3, 1, 9\].* \[2, 3, 3, 3\]",
        ),
        (
            lambda t: t.update({"encoder.conv_in.bias": torch.ones(2, dtype=torch.int32)}),
            r"encoder\.conv_in\.bias is I32",
        ),
        *(
            (
                lambda t, value=value: t["decoder.conv_out.weight"].view(-1)[-1:].fill_(value),
                rf"decoder\.conv_out\.weight has a value that is {what}",
            )
            for value, what in [
                (torch.nan, "not finite"),
                (-torch.inf, "not finite"),
                (3e38, "far too large"),
            ]
        ),
    ],
)
def test_tensors_that_do_not_fit_or_are_damaged(pack, edit, message):
    edit_weights(pack, edit)
    reseal(pack)
    with pytest.raises(PackError, match=message):
        open_pack(pack)
    with pytest.raises(CheckpointError, match=message):
        load_vae(pack / "vae", torch.device("cpu"))


def test_channels_of_another_model(pack, tmp_path):
    write_autoencoder(pack / "vae", latent_channels=16)
    reseal(pack)
    with pytest.raises(PackError, match=r"latent_channels is 16, but the transformer works on 4"):
        open_pack(pack)
    source = write_file(tmp_path / "m.safetensors", random_state())
    result = run_qplan("build", source, "--base", pack, "-o", tmp_path / "out.qpack")
    assert_fails(result, 3, "config.json", "latent_channels is 16", "another model")


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS[::5])
def test_a_base_is_refused_before_the_first_layer(pack, tmp_path, monkeypatch, field, value):
    monkeypatch.setattr("planner.weights.layer.decompose", lambda *_args, **_options: 1 / 0)
    edit_config(pack, **{field: value})
    source = write_file(tmp_path / "m.safetensors", random_state())
    result = run_qplan("build", source, "--base", pack, "-o", tmp_path / "out.qpack")
    assert_fails(result, 3, "config.json", field)


def test_what_a_configuration_says_is_not_allocated_to_find_it_wrong(pack):
    """65,536 channels at every resolution are hundreds of terabytes of weights."""
    edit_config(pack, block_out_channels=[65536, 65536], layers_per_block=16)
    with pytest.raises(PackError, match=r"lacks|must be floats"):
        open_autoencoder(pack / "vae", error=PackError)
