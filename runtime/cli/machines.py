"""Options that say how many images ``qrun upscale`` does at once, and on which machines.

Nothing heavy is imported here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from schemas.choices import check_choice
from schemas.errors import UsageError

if TYPE_CHECKING:
    from runtime.cluster.session import ClusterOptions

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class MachinesOptions:
    """Where a batch is done."""

    panel: ClassVar[str] = "Batches"

    jobs: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--jobs",
            min=1,
            help="Images done at once, on the CPU (default: 1); with --engine ray workers, each"
            " with a model (default: all there is room for).",
        ),
    ] = None
    engine: Annotated[
        str, typer.Option(help="local, or ray: workers on this machine or a Ray cluster.")
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a running Ray cluster: auto, HOST:PORT or ray://HOST:PORT (default: one of"
            " this machine, for the time of the command)."
        ),
    ] = None
    worker_cores: Annotated[
        int | None,
        typer.Option(min=1, help="Cores of a Ray worker without a GPU (default: 4 at most)."),
    ] = None

    @property
    def threads(self) -> int:
        """Images done at once in this process."""
        return self.jobs or 1

    @property
    def cluster(self) -> "ClusterOptions | None":
        """How a batch is spread over a cluster; None for this process.

        Raises:
            UsageError: there is no such engine, Ray is not installed, or its options go without it.
        """
        check_choice("--engine", self.engine, ENGINES)
        if self.engine == "local":
            if self.address is not None or self.worker_cores is not None:
                given = "--address" if self.address is not None else "--worker-cores"
                raise UsageError(f"{given} goes with --engine ray")
            return None
        from runtime.cluster.session import ClusterOptions, check_installed

        check_installed()
        return ClusterOptions(self.address, self.jobs, self.worker_cores)
