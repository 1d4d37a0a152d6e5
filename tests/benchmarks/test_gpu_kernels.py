"""Kernels by what they do; names as an H100 listed them."""

import pytest
import torch

from benchmarks import gpu_kernels
from benchmarks.gpu_kernels import REST, by_kind, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("product_kernel", "integer products"),
        ("prepare_kernel", "preparing inputs"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("nvjet_sm90_tst_192x128_64x5_1x2_h_bz_coopB_bias_TNT", "16-bit products"),
        ("triton_poi_fused__to_copy_add_convolution_gelu_mul_split_transpose_view_19", REST),
    ],
)
def test_a_kernels_name_says_what_it_does(name, kind):
    assert kind_of(name) == kind


def test_times_add_up_by_kind():
    times = [("product_kernel", 1.0), ("nvjet_a", 2.0), ("conv2d", 0.5), ("nvjet_b", 3.0)]
    assert list(by_kind(times).items()) == [
        ("16-bit products", 5.0),
        ("integer products", 1.0),
        (REST, 0.5),
    ]


def test_without_a_device_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu_kernels"])
    assert gpu_kernels.main() == 1
    assert "needs a CUDA device" in capsys.readouterr().err
