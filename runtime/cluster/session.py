"""A Ray cluster for the time of a command: one of this machine alone, or one that is there already.

Ray is an extra, and takes seconds to import.
"""

import importlib.util
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from schemas.error_text import one_line
from schemas.errors import ResourceError, UsageError

PIP_HINT = "pip install 'qdit4sr[cluster]'"
WORKER_CORES = 4
"""Cores of a worker without a GPU, where a machine has so many: small pictures use no more well."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its future default, of which it would warn
}


@dataclass(frozen=True)
class ClusterOptions:
    """How a batch is spread.

    Attributes:
        address: of a cluster, as `ray.init` takes it; None starts one on this machine.
        workers: at most so many; None for all that there is room for.
        cores: of one worker without a GPU; None for `WORKER_CORES` or a whole smaller machine.
    """

    address: str | None = None
    workers: int | None = None
    cores: int | None = None


@dataclass(frozen=True)
class Share:
    """What of a cluster the workers get.

    Attributes:
        device: that each computes on.
        workers: how many there can be.
        resources: of each, as Ray's options name them.
    """

    device: str
    workers: int
    resources: dict[str, float]


def check_installed() -> None:
    """Look whether Ray is there, without the seconds that importing it takes.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--engine ray: Ray is not installed", hint=PIP_HINT)


def _ray() -> Any:
    """The module ``ray`` with ``ray.data``."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray.data  # noqa: PLC0415  (an extra, and seconds to import)

    # It sets a level of its own when it is imported. What matters comes as errors and replies.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


@contextmanager
def cluster(options: ClusterOptions) -> Iterator[Any]:
    """Ray, connected; one that was started here ends with the block.

    Raises:
        ResourceError: there is no cluster at the address, or none could be started.
    """
    module = _ray()
    if module.is_initialized():  # by the program that called us, whose it stays
        yield module
        return
    here = {"include_dashboard": False} if options.address is None else {"address": options.address}
    try:
        module.init(log_to_driver=False, configure_logging=False, **here)
    except (OSError, RuntimeError, ValueError) as cause:  # ConnectionError and TimeoutError too
        where = "on this machine" if options.address is None else f"at {options.address}"
        raise ResourceError(
            f"no Ray cluster {where}: {one_line(cause)}",
            hint="`ray status` says whether there is one; without --address one is started here",
        ) from cause
    # A thread of Ray's prints of workers that died, onto stdout, which is for results.
    with redirect_stdout(_Nowhere()):
        try:
            yield module
        finally:
            module.shutdown()


class _Nowhere(io.TextIOBase):
    """Takes any text, and forgets it."""

    def write(self, text: str) -> int:
        return len(text)


def share_of(module: Any, options: ClusterOptions, device: str) -> Share:
    """Workers for a batch: one for each GPU of the cluster, or for so many cores.

    Args:
        module: Ray, connected.
        options: what was asked for.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: there are no GPUs, or no machine has so many cores.
    """
    machines = [node["Resources"] for node in module.nodes() if node["Alive"]]
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    most = options.workers or max(1, sum(int(machine.get("CPU", 0)) for machine in machines))
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda: no machine of the cluster has a GPU")
    if gpus and device in ("auto", "cuda"):
        return Share("cuda", min(most, gpus), {"num_gpus": 1})
    largest = max((int(machine.get("CPU", 0)) for machine in machines), default=0)
    cores = options.cores or max(1, min(WORKER_CORES, largest))
    if cores > largest:
        raise UsageError(
            f"--worker-cores {cores}: the largest machine of the cluster has {largest}"
        )
    room = sum(int(machine.get("CPU", 0)) // cores for machine in machines)
    return Share(device if device != "auto" else "cpu", min(most, room), {"num_cpus": cores})
