"""Metrics: ours against other implementations, pyiqa behind its interface, bounded downloads."""

import http.server
import socket
import threading
import urllib.error
import warnings

import numpy as np
import pytest
import torch

from runtime.evaluation import metrics, network
from runtime.evaluation.fidelity import luma, psnr, psnr_luma, ssim, ssim_luma
from runtime.evaluation.metrics import check_names, metric_names, open_metrics
from schemas.errors import UsageError


def pictures(seed=0, size=(40, 36), noise=0.05):
    """A smooth picture of whole levels and the same with noise, [1, 3, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 4, generator=generator)
    truth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    result = truth + noise * torch.randn(truth.shape, generator=generator)
    return (image.clamp(0, 1).mul(255).round() / 255 for image in (result, truth))


def as_pixels(image):
    return np.uint8(image[0].permute(1, 2, 0).mul(255).round().numpy())


def test_psnr_and_ssim_equal_scikit_image():
    measure = pytest.importorskip("skimage.metrics")
    result, truth = pictures()
    a, b = as_pixels(result), as_pixels(truth)
    # Ours adds 1e-8 to a mean square of 2e-3: under 1e-4 dB.
    assert psnr(result, truth) == pytest.approx(measure.peak_signal_noise_ratio(b, a), abs=1e-4)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = measure.structural_similarity(a, b, channel_axis=2, data_range=255, **options)
    assert ssim(result, truth) == pytest.approx(expected, abs=1e-6)


def test_luma_is_that_of_matlab():
    colour = pytest.importorskip("skimage.color")
    result, truth = pictures(seed=1)
    for image in (result, truth):
        expected = colour.rgb2ycbcr(image[0].permute(1, 2, 0).double().numpy())[..., 0]
        np.testing.assert_allclose(luma(image)[0, 0].numpy(), expected, rtol=0, atol=1e-3)


def test_gray_error_has_more_db_on_luma():
    _, truth = pictures(noise=0)
    truth = truth * 0.8
    # Y spans 219 of 255 levels, so a gray error is smaller there by that factor: 1.32 dB.
    gain = psnr_luma(truth + 0.1, truth) - psnr(truth + 0.1, truth)
    assert gain == pytest.approx(20 * np.log10(255 / 219), abs=1e-3)


def test_equal_pictures_have_a_finite_best_value():
    _, truth = pictures()
    assert psnr(truth, truth) == pytest.approx(80)
    assert psnr_luma(truth, truth) == pytest.approx(80)
    assert ssim_luma(truth, truth) == pytest.approx(1)


def test_ssim_says_that_an_image_is_too_small():
    result, truth = pictures(size=(10, 40))
    (metric,) = open_metrics(["ssim"]).metrics
    with pytest.raises(ValueError, match="at least 11 x 11"):
        metric.score(result, truth)


def test_names_are_split_lowered_and_kept_once():
    assert metric_names(" PSNR,ssim,,psnr ", have_truth=True) == ["psnr", "ssim"]
    assert "lpips" in metric_names(None, have_truth=True)
    assert "lpips" not in metric_names(None, have_truth=False)
    assert "musiq" in metric_names(None, have_truth=False)
    with pytest.raises(UsageError, match="no name"):
        metric_names(",", have_truth=True)


def test_without_pyiqa_the_own_metrics_work_and_others_say_how_to_get_it(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    check_names(["psnr", "ssim"], have_truth=True)
    with pytest.raises(UsageError, match="musiq, lpips need pyiqa") as caught:
        check_names(["psnr", "musiq", "lpips"], have_truth=True)
    assert "pip install 'qdit4sr[eval]'" in caught.value.hint


@pytest.fixture
def names(monkeypatch):
    """Stand in for pyiqa's lists of names."""
    known = {"fsim", "lpips", "piqe", "musiq", "fid", "clipscore"}
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(metrics, "_pyiqa_names", lambda: ({"fsim", "lpips"}, known))


@pytest.mark.parametrize(
    ("asked", "have_truth", "said", "hint"),
    [
        ("fsmi", True, "no metric 'fsmi'", "fsim"),
        ("xyzzy", True, "no metric 'xyzzy'", "pyiqa -ls"),
        ("fid", True, "whole sets", ""),
        ("clipscore", True, "with a text", ""),
        ("lpips", False, "compares with a truth", "--truth"),
        ("psnr", False, "compares with a truth", "--truth"),
    ],
)
def test_names_that_cannot_be_computed(names, asked, have_truth, said, hint):
    with pytest.raises(UsageError, match=said) as caught:
        check_names(["piqe", asked] if have_truth else [asked], have_truth=have_truth)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("online", "error", "reason"),
    [
        (True, urllib.error.HTTPError("u", 404, "Not Found", None, None), "HTTP Error 404"),
        (False, urllib.error.URLError("no network"), "weights are not on this machine"),
        (False, ImportError("No module", name="pkg_resources"), "setuptools<81"),
        (False, RuntimeError("size\n mismatch"), "RuntimeError: size mismatch"),
    ],
)
def test_a_metric_that_cannot_be_had_leaves_the_others(monkeypatch, online, error, reason):
    def fail(name):
        raise error

    monkeypatch.setattr(metrics, "_from_pyiqa", fail)
    monkeypatch.setattr(network, "answers", lambda url: online)
    opened = open_metrics(["psnr", "lpips", "ssim"])
    assert [metric.name for metric in opened.metrics] == ["psnr", "ssim"]
    assert list(opened.unavailable) == ["lpips"]
    assert reason in opened.unavailable["lpips"]
    assert "\n" not in opened.unavailable["lpips"]


def test_own_metrics_ask_no_network(monkeypatch):
    monkeypatch.setattr(network, "answers", lambda url: pytest.fail("asked"))
    assert len(open_metrics(["psnr", "psnry", "ssim", "ssimc"]).metrics) == 4


def test_without_network_look_ups_fail_at_once_and_only_inside(monkeypatch):
    monkeypatch.setattr(network, "answers", lambda url: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    before, timeout = socket.getaddrinfo, socket.getdefaulttimeout()

    def fail_inside():
        with network.bounded_downloads() as online:
            assert not online
            assert network.os.environ["HF_HUB_OFFLINE"] == "1"
            with pytest.raises(socket.gaierror, match="no network"):
                socket.create_connection(("localhost", 9))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert socket.getaddrinfo is before
    assert socket.getdefaulttimeout() == timeout
    assert network.os.environ["HF_HUB_OFFLINE"] == "0"


def test_with_network_only_silence_is_bounded(monkeypatch):
    monkeypatch.setattr(network, "answers", lambda url: True)
    before = socket.getaddrinfo
    with network.bounded_downloads() as online:
        assert online
        assert socket.getaddrinfo is before
        assert socket.getdefaulttimeout() == network.SILENCE_S
    assert socket.getdefaulttimeout() is None


class NotFound(http.server.BaseHTTPRequestHandler):
    """Answers every question with 404."""

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_answers_hears_any_server_and_does_not_wait_for_a_mute_one(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert network.answers(f"http://127.0.0.1:{server.server_port}")
        thread.join()
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # takes the connection and says nothing
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert not network.answers(url, within_s=0.2)
    assert not network.answers(url, within_s=5)  # refused


def test_pyiqa_computes_what_its_names_say(monkeypatch, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyiqa = pytest.importorskip("pyiqa")
    monkeypatch.setattr(network, "answers", lambda url: False)
    result, truth = pictures(size=(96, 88))
    asked = ["psnr", "psnry", "ssim", "ssimc", "fsim", "piqe", "lpips"]
    check_names(asked, have_truth=True)
    opened = open_metrics(asked).to(torch.device("cpu"))
    found = {metric.name: metric for metric in opened.metrics}
    assert {"fsim", "piqe"} <= found.keys()
    assert found["piqe"].lower_better
    assert not found["piqe"].needs_truth
    assert found["fsim"].needs_truth
    assert 0 < found["fsim"].score(result, truth) < found["fsim"].score(truth, truth)
    assert found["piqe"].score(result, None) > 0

    for name, options in {
        "psnr": {},
        "psnry": {"color_space": "ycbcr"},
        "ssim": {"color_space": "ycbcr"},
        "ssimc": {},
    }.items():
        theirs = float(
            pyiqa.create_metric(name, device=torch.device("cpu"), **options)(result, truth)
        )
        assert found[name].score(result, truth) == pytest.approx(theirs, abs=1e-4), name
    with pytest.raises(UsageError, match="no metric 'pnsr'"):
        check_names(["pnsr"], have_truth=True)
    assert capsys.readouterr().out == ""
