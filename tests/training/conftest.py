"""A photo, an untrained autoencoder, and a tiny model."""

import numpy as np
import pytest
import torch

from tests.training.test_network import CONFIG
from training.autoencoder import new_autoencoder
from training.crops import Crops
from training.export import write_folder
from training.network import new_network
from training.networks import NamedNetwork


@pytest.fixture(scope="package")
def crops():
    from skimage.data import chelsea

    return Crops([np.ascontiguousarray(chelsea())], seed=0)


@pytest.fixture(scope="package")
def vae():
    torch.manual_seed(0)
    model = new_autoencoder()
    model.register_to_config(shift_factor=0.1, scaling_factor=0.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="package")
def folder(tmp_path_factory, vae):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    named = NamedNetwork("tiny", CONFIG, 0, "A test.")
    network = new_network(CONFIG, 0)
    torch.manual_seed(0)
    for parameter in network.parameters():  # a new network's velocity is 0
        parameter.data += 0.02 * torch.randn_like(parameter)
    write_folder(named, network, vae, folder, dtype=torch.float32)
    return folder
