"""What quantization does to structure: FSIM to the truth, beside the unquantized network's."""

from collections.abc import Sequence

from torch import Tensor

from benchmarks.cases import psnr_db
from training.fsim import Plane, fsim, luminance


class Structure:
    """PSNR to the unquantized network's picture and FSIM to the truth; needs no extra."""

    def to_reference(self, picture: Tensor, reference: Tensor) -> dict[str, float]:
        """PSNR in dB of two pictures [1, 3, H, W] in 0 ... 1."""
        return {"reference_psnr_db": psnr_db(picture, reference)}

    def to_truth(self, picture: Tensor, truth: Tensor) -> dict[str, float]:
        """FSIM of two pictures [1, 3, H, W] in 0 ... 1."""
        return {"truth_fsim": fsim(_plane(picture), _plane(truth))}


def changes(
    quantized: Sequence[Sequence[float]], unquantized: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Differences value by value, of every case one per noise seed."""
    return [
        [round(ours - theirs, 6) for ours, theirs in zip(*pair, strict=True)]
        for pair in zip(quantized, unquantized, strict=True)
    ]


def _plane(picture: Tensor) -> Plane:
    return luminance(picture[0].cpu().numpy())
