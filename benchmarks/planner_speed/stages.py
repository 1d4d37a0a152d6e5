"""Processor time of the planner's stages, taken by wrapping the functions that they are."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from torch import Tensor

from planner.settings import BuildSettings
from planner.weights.layer import allocation_variance, quantize_layer

STAGES = {
    "rotate": "planner.weights.layer.rotate",
    "global factors": "planner.weights.hsvd._global_factors",
    "local factors": "planner.weights.hsvd._local_factors",
    "subtract global": "planner.weights.hsvd._subtract_global",
    "subtract local": "planner.weights.hsvd._subtract_local",
    "quantize": "planner.weights.layer.quantize_weight_rows",
    "pack codes": "planner.weights.layer.pack_codes",
}
"""Stage -> the function that it is, where it is looked up. None calls another."""


class Stopwatch:
    """Adds up processor seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timing(self, stages: dict[str, str]) -> Iterator[None]:
        """Time the functions of ``stages`` while the block runs."""
        with contextlib.ExitStack() as patches:
            for stage, function in stages.items():
                patches.enter_context(patch(function, self._timed(stage, _find(function))))
            yield

    def run(self, stage: str, function: Callable[[], Any]) -> Any:
        """Call ``function`` and add its time to ``stage``."""
        return self._timed(stage, function)()

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[stage] += time.process_time() - began

        return timed


def time_planner(weight: Tensor, bits: int, settings: BuildSettings, watch: Stopwatch) -> None:
    """Measure and quantize one layer, as a build does, and add what it took to ``watch``.

    ``measure`` is the first pass, ``whole layer`` the second, and the latter's parts are `STAGES`.
    """
    watch.run("measure", lambda: allocation_variance(weight, settings))
    with watch.timing(STAGES):
        watch.run("whole layer", lambda: quantize_layer("layer", weight, None, bits, settings))


def _find(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(__import__(module, fromlist=[name]), name)
    return found
