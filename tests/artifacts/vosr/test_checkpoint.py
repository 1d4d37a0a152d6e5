"""VOSR's checkpoints: where the weights lie, what ``args.json`` says, and what shapes say."""

import json

import pytest
from safetensors.torch import save_file

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.vosr.config import VOSR_05B
from artifacts.vosr.family import FAMILY
from artifacts.vosr.layout import tensor_shapes
from schemas.errors import CheckpointError
from tests.artifacts import make_checkpoint
from tests.artifacts.vosr.make_vosr import TINY, random_state, write_folder


@pytest.mark.parametrize(
    "weights",
    [
        "checkpoints/ema_model.safetensors",
        "clean_weights/model.safetensors",
        "model.safetensors",
        "vosr.safetensors",
    ],
)
def test_a_published_folder(tmp_path, weights):
    folder = write_folder(tmp_path / "VOSR_0.5B_os", random_state(), weights=weights)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.family is FAMILY
    assert checkpoint.config == TINY
    assert checkpoint.remarks == ()  # learning rates are nothing to speak of
    assert checkpoint.variant == "os"
    assert checkpoint.parts_dir == folder
    assert checkpoint.names == list(tensor_shapes(TINY))


def test_its_inner_folder_names_the_same_model(tmp_path):
    folder = write_folder(tmp_path / "VOSR_0.5B_os", random_state())
    checkpoint = open_checkpoint(folder / "checkpoints")
    assert checkpoint.config == TINY
    assert checkpoint.parts_dir == folder


def test_averaged_weights_go_first(tmp_path):
    folder = write_folder(tmp_path / "vosr", random_state(seed=1))
    save_file(random_state(seed=2), folder / "checkpoints" / "model.safetensors")
    (header,) = open_checkpoint(folder).headers
    assert header.path.name == "ema_model.safetensors"


def test_weights_in_the_folder_itself_go_before_those_of_a_training_run(tmp_path):
    state = make_checkpoint.random_state()
    make_checkpoint.write_file(tmp_path / "model.safetensors", state)
    (tmp_path / "checkpoints").mkdir()
    save_file(random_state(), tmp_path / "checkpoints" / "model.safetensors")
    assert open_checkpoint(tmp_path).family.name == "dit4sr"


def test_a_bare_file_says_its_sizes(tmp_path):
    config = TINY.model_copy(
        update={"enc_dim": 768, "layer_dinov2b_list": (8,), "dinov2_size": 448, "resolution": 256}
    )
    save_file(random_state(config), tmp_path / "bare.safetensors")
    assert open_checkpoint(tmp_path / "bare.safetensors").config == config
    save_file(random_state(config, table=False), tmp_path / "without.safetensors")
    found = open_checkpoint(tmp_path / "without.safetensors").config
    assert found == config.model_copy(update={"resolution": VOSR_05B.resolution})


def test_a_bare_file_of_another_encoder_needs_its_folder(tmp_path):
    save_file(random_state(), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="features of 24 channels") as raised:
        open_checkpoint(tmp_path / "bare.safetensors")
    assert raised.value.hint == "name the folder that holds args.json"


def test_the_multi_step_network_is_another(tmp_path):
    state = {n: t for n, t in random_state().items() if not n.startswith("r_embedder.")}
    folder = write_folder(tmp_path / "VOSR_0.5B_ms", state)
    with pytest.raises(CheckpointError, match=r"not a VOSR .* lacks r_embedder\.mlp\.0\.weight"):
        open_checkpoint(folder)


def test_args_that_the_tensors_contradict(tmp_path):
    folder = write_folder(tmp_path / "vosr", random_state(), depth=3)
    with pytest.raises(CheckpointError, match=r"as args\.json says: missing blocks\.2\."):
        open_checkpoint(folder)
    write_folder(folder, random_state(), encdim_ratio=3)
    with pytest.raises(CheckpointError, match=r"mlp_ca\.fc1\.bias has shape"):
        open_checkpoint(folder)


def test_args_as_the_training_program_writes_numbers(tmp_path):
    folder = write_folder(tmp_path / "vosr", random_state(), mlp_ratio=4, use_pos=False)
    assert open_checkpoint(folder).config == TINY


def test_args_without_a_size(tmp_path):
    folder = write_folder(tmp_path / "vosr", random_state())
    content = json.loads((folder / "args.json").read_text())
    del content["num_heads"]
    (folder / "args.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="num_heads"):
        open_checkpoint(folder)
