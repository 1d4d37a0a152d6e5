"""What ``qrun upscale`` does with one image, in a form that other processes can be sent.

Heavy imports stand inside the functions that need them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.cli.model import BaseOptions, NetworkOptions, local_pack
from runtime.cli.record import Records
from runtime.images.batch import Job
from runtime.images.result_style import ResultStyle
from runtime.remote.copies import local_files
from schemas.errors import PackError

if TYPE_CHECKING:
    from runtime.loader import Loader
    from runtime.pipeline import Pipeline
    from runtime.prompts.texts import PromptTexts
    from runtime.sampling.settings import UpscaleSettings

StepShown = Callable[[int, int], None]


@dataclass(frozen=True)
class ModelChoice:
    """Which model a command runs, and how it is sampled.

    Attributes:
        pack: as the command names it, be it on the hub.
        network: options of the network.
        base: what goes beside it.
        texts: prompts that replace the model's own.
        load_pipeline: gets it into memory.
    """

    pack: Path | None
    network: NetworkOptions
    base: BaseOptions
    texts: "PromptTexts"
    load_pipeline: "Loader"

    def load(self, device: str | None = None) -> "tuple[Pipeline, UpscaleSettings]":
        """Load it, onto ``device`` in place of the one that the options name.

        Raises:
            PackError, CheckpointError, UsageError, ResourceError: as `runtime.loader` says.
        """
        from runtime.sampling.table_steps import check_table_steps

        network = self.network
        pipeline = self.load_pipeline(
            pack=self.local_pack,
            full_precision=network.full_precision,
            variant=network.variant,
            base=self.base.files,
            texts=self.texts,
            checkpoint=network.checkpoint,
            device=network.device if device is None else device,
            dtype=network.dtype,
            backend=network.backend,
            activation_bits=network.activation_bits,
            memory=network.memory,
        )
        settings = network.sampling.settings(
            pipeline.sampling,
            patch_size=pipeline.patch_size,
            largest_tile=pipeline.largest_tile,
        )
        check_table_steps(pipeline.table, settings)
        return pipeline, settings

    @property
    def local_pack(self) -> Path | None:
        """The pack's folder on this machine."""
        return None if self.pack is None else local_pack(self.pack)


@dataclass(frozen=True)
class ImageWork:
    """What is done with each image alike, once a model is there.

    Attributes:
        records: what results say of how they were made; has the images' own prompts.
        style: of the results.
        max_pixels: an input with more is refused.
    """

    records: Records
    style: ResultStyle
    max_pixels: int

    def do(
        self,
        job: Job,
        pipeline: "Pipeline",
        settings: "UpscaleSettings",
        step: StepShown | None = None,
    ) -> dict[str, Any]:
        """Upscale one image; what there is to say of it."""
        from runtime.upscale import upscale_file

        started = time.perf_counter()
        with local_files(job) as (source, output):
            report = upscale_file(
                pipeline,
                source,
                output,
                settings,
                caption=self.records.captions.get(job.source),
                made_with=self.records.of(job.source, source),
                style=self.style,
                max_pixels=self.max_pixels,
                progress=step,
            )
        return {
            "width_px": report.width,
            "height_px": report.height,
            "seconds": round(time.perf_counter() - started, 3),
            "notes": list(report.notes),
        }


@dataclass(frozen=True)
class RemoteWork:
    """`ImageWork` for a process elsewhere, which loads the model by itself.

    Attributes:
        model: to be loaded.
        images: what is done then.
        identity: of the model, as results record it.
        folder: where the command runs, to which its paths are relative.
    """

    model: ModelChoice
    images: ImageWork
    identity: str
    folder: Path

    def __call__(self, device: str) -> Callable[[Job], dict[str, Any]]:
        """Load the model; what does one job with it.

        Raises:
            PackError: it is another one than where the command runs.
        """
        import contextlib
        import os

        from runtime.model_identity import pack_facts

        with contextlib.suppress(OSError):  # a machine without that folder has absolute paths
            os.chdir(self.folder)
        pipeline, settings = self.model.load(device)
        pack = self.model.local_pack
        if pack is not None and self.model.network.full_precision is None:
            found, _ = pack_facts(pack)
            if found != self.identity:
                raise PackError(
                    f"{self.model.pack}: another pack on {os.uname().nodename} than where the"
                    " command runs",
                    hint="copy it there, or name one on the hub with its revision",
                )
        return lambda job: self.images.do(job, pipeline, settings)
