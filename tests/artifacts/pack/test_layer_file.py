import pytest
import torch

from artifacts.pack.layer_file import read_layer, write_layer
from schemas.errors import PackError
from tests.artifacts.make_pack import random_weight


@pytest.fixture
def stored(tmp_path):
    weight = random_weight("block.to_q", 8, 24, smoothing=True)
    record = weight.record(error_db=20.123, global_energy=0.1, note="a \u201cnote\u201d")
    path = tmp_path / "layer.safetensors"
    write_layer(path, weight, record)
    return path, weight, record


def test_a_layer_is_read_back_as_it_was(stored):
    path, weight, record = stored
    found = read_layer(path, weight.name, weight.rotation, weight.signs)
    assert found.record == record
    assert torch.equal(found.weight.decode(), weight.decode())
    for name, tensor in weight.tensors().items():
        assert torch.equal(found.weight.tensors()[name], tensor)
        assert torch.equal(found.header.read(name), tensor)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_flipped_bit_is_found(stored):
    path, weight, _ = stored
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(PackError):
            read_layer(path, weight.name, weight.rotation, weight.signs)


def test_the_layer_of_another_name_is_refused(stored):
    path, weight, _ = stored
    with pytest.raises(PackError, match="damaged, or not of"):
        read_layer(path, "block.to_k", weight.rotation, weight.signs)
    with pytest.raises(PackError, match="cannot be read"):
        read_layer(path.with_name("absent"), weight.name, weight.rotation, weight.signs)
