"""Whether the kernels compute rightly on a device: a few layers of a pack against the reference.

No kernel is trusted by itself: a compiler, a driver or a device that is not among those tried may
get one wrong, or not run it at all. So ``--backend auto`` takes them where integer sums equal the
reference's, bit for bit, outputs agree within the rounding of 16-bit numbers, and a CUDA graph of a
layer gives what the layer gives. The result is remembered (`check_results`), as long as device,
driver, Triton, torch, kernels, tile sizes and kinds of layers stay the same.
"""

import ctypes
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from runtime.backends.reference import ReferenceLinear, integer_product
from runtime.backends.trial import Trial, TrialLayer
from runtime.backends.triton.check_results import Facts, recall, remember
from runtime.backends.triton.device import capability
from runtime.backends.triton.linear import TritonLinear
from runtime.backends.triton.tile_table import triton_version
from runtime.backends.triton.tile_table_file import user_file
from runtime.network.cuda_graphs import GraphedForward
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import ResourceError

logger = logging.getLogger(__name__)

TOKENS = (1, 77, 1100)
"""Of the inputs tried: a conditioning vector, a prompt, and what the largest tiles are for."""
LARGEST_ERROR = 3 * 2**-7
"""Of an output, relative to its size. Rotated tokens, low-rank activations and the result are each
rounded to bfloat16, together by 2^-7 at most, and so is the factors' ``down`` before; what is left
is for codes that float32 rounding moves over a border. A code of four bits that is wrong everywhere
is at 0.1 and more."""
_OUTLIER = 30.0
_DRIVER = Path("/proc/driver/nvidia/version")


def self_check(device: torch.device, trial: Trial) -> str | None:
    """Why the kernels should not be taken on ``device``; None where they passed, now or before.

    Raises:
        ResourceError: the device cannot be used any more after the check.
    """
    facts = facts_of(device, trial)
    known = recall(facts)
    if known is not None:
        return known.failure
    logger.info("checking backend triton on %s; once, it takes some seconds", facts["device"])
    try:
        failure = first_failure(device, trial)
    except torch.OutOfMemoryError:  # says nothing about the kernels
        return "there was no memory left to check it"
    except Exception as cause:  # compilers and drivers raise whatever they like
        failure = f"{type(cause).__name__}: {cause}"
    failure = None if failure is None else f"its check failed here: {_one_line(failure)}"
    remember(facts, failure)
    if failure is not None and not _is_usable(device):
        raise ResourceError(
            f"backend triton: {failure}, and the device cannot be used any more",
            hint="the next run takes the reference; so does --backend reference",
        )
    return failure


@torch.inference_mode()
def first_failure(device: torch.device, trial: Trial) -> str | None:
    """What is wrong with the first layer that is not computed as the reference computes it."""
    for layer in trial.layers:
        weight = trial.read(layer.name)
        try:
            fast = TritonLinear(weight, trial.quantizer.activation_scale, "int8").to(device)
        except ValueError:  # more inputs than the kernels hold: the reference computes such a layer
            continue
        slow = ReferenceLinear(weight, trial.quantizer.activation_scale).to(device)
        for x in _inputs(layer, trial.dtype, device):
            for bits in layer.activation_bits:
                wrong = _difference(fast, slow, x, bits)
                if wrong is not None:
                    return f"layer {layer.name} (A{bits}, tokens: {len(x)}): {wrong}"
        if (wrong := _graph_difference(fast, x, bits)) is not None:
            return f"layer {layer.name} (A{bits}, tokens: {len(x)}): {wrong}"
    return None


def _difference(fast: TritonLinear, slow: ReferenceLinear, x: Tensor, bits: int) -> str | None:
    expected = slow(x.float(), bits)
    prepared = fast.prepare(x, bits)
    if prepared.codes is not None and bits != UNQUANTIZED:
        codes = (prepared.codes.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8)
        sums = integer_product(codes, bits, slow.codes, slow.weight_bits)
        found = fast.doubled_product(prepared)
        if not torch.equal(found.to(sums), sums):
            return "integer sums differ"
    error = _relative_error(fast.apply_to(prepared), expected)
    # A value that is not a number is no small error.
    return None if error <= LARGEST_ERROR else f"its output is off by {error:.1%}"


def _graph_difference(fast: TritonLinear, x: Tensor, bits: int) -> str | None:
    """What a replay for ``x`` gives, after a capture for other tokens, against an ordinary call."""
    if bits == UNQUANTIZED:  # never captured
        return None

    def forward(values: Tensor, column: Mapping[str, int]) -> Tensor:
        result: Tensor = fast(values, column[fast.name])
        return result

    graphed = GraphedForward(forward)
    for values in (x.flip(0), x.flip(0), x):  # called, captured, replayed
        replayed = graphed(values, bits={fast.name: bits})
    error = _relative_error(replayed, fast(x, bits))
    return None if error <= LARGEST_ERROR else f"a CUDA graph of it is off by {error:.1%}"


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _inputs(layer: TrialLayer, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor]:
    """Tokens of normal values, one channel an outlier; of several tokens the last is zero."""
    generator = torch.Generator().manual_seed(0)
    for count in TOKENS:
        x = torch.randn(count, layer.record.in_features, generator=generator)
        x[:, 0] *= _OUTLIER
        if count > 1:
            x[-1] = 0
        yield x.to(device, dtype)


def facts_of(device: torch.device, trial: Trial) -> Facts:
    """All that a result depends on, by name."""
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "capability": str(capability(device)),
        "driver": driver_version(),
        "triton": triton_version(),
        "torch": torch.__version__,
        "kernels": _kernels_digest(),
        "tile sizes": _digest_of(user_file()),
        "dtype": str(trial.dtype),
        "scales": trial.quantizer.activation_scale,
        "layers": json.dumps([layer.kind for layer in trial.layers]),
    }


def driver_version() -> str:
    """The version of NVIDIA's driver; at least the CUDA version it stands for; else nothing."""
    try:
        return _DRIVER.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    except (OSError, IndexError):
        pass
    number = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return ""
    return str(number.value)


@lru_cache(maxsize=1)
def _kernels_digest() -> str:
    """A hash of this package's sources and its table of tile sizes."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.iterdir()):
        if file.suffix in (".py", ".json"):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _digest_of(file: Path | None) -> str:
    try:
        if file is None or not file.is_file():
            return ""
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _one_line(text: str) -> str:
    first = text.strip().partition("\n")[0]
    return "".join(char if char.isprintable() else " " for char in first)[:200]


def _is_usable(device: torch.device) -> bool:
    """Whether the device still computes: some faults of a kernel end that for the process."""
    try:
        return float(torch.ones(1, device=device).sum()) == 1
    except RuntimeError:
        return False
