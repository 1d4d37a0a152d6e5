"""A photo and an untrained autoencoder."""

import numpy as np
import pytest
import torch

from training.autoencoder import new_autoencoder
from training.crops import Crops


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
