"""Metrics by name: four of our own, and all that pyiqa has which judge one image at a time.

Names are pyiqa's. PSNR and SSIM are computed here (`runtime.evaluation.fidelity`), so they need no
extra, and so that their luma is the papers': pyiqa's own ``psnry`` and ``ssim`` take that of YIQ,
which spans the whole range and gives 1.3 dB less.
"""

import difflib
import importlib.util
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from runtime.evaluation.fidelity import psnr, psnr_luma, ssim, ssim_luma
from runtime.evaluation.network import WEIGHTS_URL, bounded_downloads
from schemas.error_text import one_line
from schemas.errors import UsageError

logger = logging.getLogger(__name__)

WITH_TRUTH = ("psnry", "ssim", "lpips", "dists", "fsim")
"""Metrics taken unasked where there is a truth."""
WITHOUT_TRUTH = ("piqe", "musiq", "maniqa", "clipiqa", "liqe")
"""Metrics taken unasked everywhere. With LPIPS these hold all of the paper's Table 1."""

INSTALL_HINT = "pip install 'qdit4sr[eval]'"

_WHOLE_SETS = ("fid", "inception_score")
_WITH_TEXT = ("clipscore",)
_OLD_SETUPTOOLS = "pkg_resources"
"""A module that CLIP's package imports and that setuptools 81 and later no longer bring."""


@dataclass(frozen=True)
class Metric:
    """One way to judge a result.

    Attributes:
        name: pyiqa's.
        label: the name with what else one has to know of it.
        lower_better: whether less is better.
        needs_truth: whether it compares with the truth.
        source: ``built in`` or ``pyiqa``.
        compute: result and truth (or None), both [1, 3, H, W] in 0 ... 1 -> value.
        to: returns the metric on another device.
    """

    name: str
    label: str
    lower_better: bool
    needs_truth: bool
    source: str
    compute: Callable[[Tensor, Tensor | None], float]
    to: Callable[[torch.device], "Metric"]

    def score(self, result: Tensor, truth: Tensor | None) -> float:
        """Return the value for one image.

        Raises:
            ValueError: it is not a finite number; otherwise, whatever the metric raises.
        """
        with _silence():
            value = self.compute(result, truth)
        if not math.isfinite(value):
            raise ValueError(f"{self.name} is {value}")
        return value


@dataclass(frozen=True)
class MetricSet:
    """The metrics of one evaluation.

    Attributes:
        metrics: those that can be computed, in the order asked for.
        unavailable: name -> why it cannot be computed here, in one line.
    """

    metrics: tuple[Metric, ...]
    unavailable: dict[str, str]

    def to(self, device: torch.device) -> "MetricSet":
        """Return the same metrics, computed on ``device``."""
        return replace(self, metrics=tuple(metric.to(device) for metric in self.metrics))


def metric_names(asked: str | None, *, have_truth: bool) -> list[str]:
    """Return the metrics that a command asks for, each once, in lower case.

    Args:
        asked: names with commas between them; None for the usual ones.
        have_truth: whether some data set has a truth.

    Raises:
        UsageError: nothing is asked for.
    """
    if asked is None:
        return [*(WITH_TRUTH if have_truth else ()), *WITHOUT_TRUTH]
    names = list(dict.fromkeys(name.strip().lower() for name in asked.split(",") if name.strip()))
    if not names:
        raise UsageError("--metrics: no name given")
    return names


def check_names(names: Sequence[str], *, have_truth: bool) -> None:
    """Make sure that all names are those of metrics that can judge what there is.

    Raises:
        UsageError: pyiqa is needed and missing; a name is unknown (near ones are named), is that
            of a metric that does not judge images one by one, or needs a truth and there is none.
    """
    needs_truth = set(_BUILT_IN)
    others = [name for name in names if name not in _BUILT_IN]
    if others:
        if importlib.util.find_spec("pyiqa") is None:
            raise UsageError(
                f"metrics {', '.join(others)} need pyiqa, which is not installed",
                hint=f"{INSTALL_HINT}, or --metrics {','.join(_BUILT_IN)}",
            )
        comparing, known = _pyiqa_names()
        needs_truth |= comparing
        for name in others:
            _check_name(name, known | needs_truth)
    for name in names:
        if name in needs_truth and not have_truth:
            raise UsageError(f"metric {name} compares with a truth", hint="give --truth")


def open_metrics(names: Sequence[str]) -> MetricSet:
    """Make every metric ready, on the CPU; weights are fetched where they are missing.

    A metric that cannot be made ready is no error: the others are computed. `check_names` comes
    first.
    """
    ready: list[Metric] = []
    unavailable: dict[str, str] = {}
    if all(name in _BUILT_IN for name in names):
        return MetricSet(tuple(_BUILT_IN[name] for name in names), {})
    with bounded_downloads() as online:
        if not online:
            logger.info("%s does not answer: no weights of metrics are fetched", WEIGHTS_URL)
        for name in names:
            try:
                ready.append(_BUILT_IN[name] if name in _BUILT_IN else _from_pyiqa(name))
            except Exception as error:  # whatever a metric's own code raises
                unavailable[name] = _reason(error, online=online)
                logger.info("metric %s is not available: %s", name, unavailable[name])
    return MetricSet(tuple(ready), unavailable)


def versions() -> dict[str, str | None]:
    """Versions of what the values depend on; None for a package that is not there."""
    found: dict[str, str | None] = {"torch": torch.__version__}
    for package in ("pyiqa", "timm", "torchvision"):
        installed = importlib.util.find_spec(package) is not None
        found[package] = version(package) if installed else None
    return found


def _check_name(name: str, known: set[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=3)
        raise UsageError(
            f"there is no metric {name!r}",
            hint=f"do you mean {', '.join(near)}?" if near else "pyiqa -ls lists all names",
        )
    if any(part in name for part in _WHOLE_SETS):
        raise UsageError(f"metric {name} judges whole sets of images, not single ones")
    if any(part in name for part in _WITH_TEXT):
        raise UsageError(f"metric {name} compares an image with a text")


def _pyiqa_names() -> tuple[set[str], set[str]]:
    """Names of pyiqa's metrics: those that need a truth, and all."""
    with _silence():
        import pyiqa  # noqa: PLC0415  (an extra, and slow to import)

        return set(pyiqa.list_models(metric_mode="FR")), set(pyiqa.list_models())


def _from_pyiqa(name: str) -> Metric:
    """Make one of pyiqa's metrics ready."""
    with _silence():
        import pyiqa  # noqa: PLC0415

        module = pyiqa.create_metric(name, device=torch.device("cpu"))
    needs_truth = module.metric_mode == "FR"

    def on(device: torch.device) -> Metric:
        placed = module.to(device)

        def compute(result: Tensor, truth: Tensor | None) -> float:
            inputs = [result, truth] if needs_truth else [result]
            return float(placed(*(image.to(device) for image in inputs if image is not None)))

        return Metric(name, name, bool(module.lower_better), needs_truth, "pyiqa", compute, on)

    return on(torch.device("cpu"))


def _built_in(name: str, label: str, function: Callable[[Tensor, Tensor], float]) -> Metric:
    def compute(result: Tensor, truth: Tensor | None) -> float:
        assert truth is not None  # needs_truth
        return function(result, truth)

    metric: Metric
    metric = Metric(
        name,
        label,
        lower_better=False,
        needs_truth=True,
        source="built in",
        compute=compute,
        to=lambda _device: metric,
    )
    return metric


_BUILT_IN = {
    metric.name: metric
    for metric in (
        _built_in("psnr", "psnr (RGB)", psnr),
        _built_in("psnry", "psnr (Y)", psnr_luma),
        _built_in("ssim", "ssim (Y)", ssim_luma),
        _built_in("ssimc", "ssim (RGB)", ssim),
    )
}


def _reason(error: Exception, *, online: bool) -> str:
    """Why a metric could not be made ready, in one line."""
    if isinstance(error, ImportError) and error.name == _OLD_SETUPTOOLS:
        return f"CLIP's package needs {_OLD_SETUPTOOLS}: pip install 'setuptools<81'"
    # Failed downloads are all OSErrors; offline, what they say is about our own refusal.
    if isinstance(error, OSError) and not online:
        return "its weights are not on this machine, and there is no network to fetch them"
    return f"{type(error).__name__}: {one_line(error)}"


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what metrics print, log and warn about off the screen; stdout is for results."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def describe(metric: Metric) -> dict[str, Any]:
    """One metric for ``--json``."""
    return {
        "name": metric.name,
        "label": metric.label,
        "better": "lower" if metric.lower_better else "higher",
        "needs_truth": metric.needs_truth,
        "source": metric.source,
    }
