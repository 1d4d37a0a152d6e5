"""Rows become packs through the planner's own interface, and networks through the runtime's."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from artifacts.checkpoint.reader import Checkpoint, open_checkpoint
from artifacts.pack.reader import Pack, open_pack
from benchmarks.quality.calibration_images import write_calibration_images
from benchmarks.quality.rows import Row
from benchmarks.quality.store import key_of
from planner.build.base_model import BaseModel, find_base_model
from planner.build.build import build
from planner.build.calibrated_build import CalibrationRun, build_calibrated, measure_inputs
from planner.calibrate.calibration_file import read_calibration, write_calibration
from planner.moments.find import find_moments
from planner.moments.kept import SecondMoments
from planner.probe.run import ProbeSettings, probe_checkpoint, usual_cotangents
from planner.probe.sensitivity_file import read_sensitivity, write_sensitivity
from planner.recipes import recipe_settings
from planner.settings import BuildSettings
from planner.target import parse_target
from runtime.dit4sr.network import DiT4SR
from runtime.load import network_from_pack
from runtime.sampling.bit_schedule import BitsAt, BitSchedule
from schemas.calibration import Calibration
from schemas.errors import UsageError
from schemas.sensitivity import SensitivityMap

BACKEND = "reference"
"""The yardstick: no row depends on which faster kernels a machine happens to have."""


@dataclass(frozen=True)
class Quantized:
    """A network ready to be sampled, and what its pack says of it.

    Attributes:
        pack: the opened pack.
        network: in float32.
        bits_at: its bit grid.
    """

    pack: Pack
    network: DiT4SR
    bits_at: BitsAt


class PackMaker:
    """Builds packs of one checkpoint, calibrated for one sampler.

    Args:
        model: the checkpoint's folder.
        work: for calibration images, what was measured on this checkpoint, and packs in the making.
        steps: sampling steps: the columns of every bit grid.
        guidance: of the sampler; calibration runs with it too.
        device: where networks run, of calibrations and probes too.
    """

    def __init__(
        self,
        model: Path,
        work: Path,
        *,
        steps: int,
        guidance: float,
        device: torch.device = torch.device("cpu"),  # noqa: B008  (immutable)
    ) -> None:
        self.work = work
        self.device = device
        self.checkpoint: Checkpoint = open_checkpoint(model)
        base = find_base_model(self.checkpoint, None)
        self.base: BaseModel = replace(
            base, sampling=base.sampling.model_copy(update={"steps": steps, "guidance": guidance})
        )

    @cached_property
    def _measured_on(self) -> str:
        """Marks files of what was measured: the checkpoint's tensors and the sampler."""
        sampling = self.base.sampling
        source = key_of({"source": sorted(f.sha256 for f in self.checkpoint.source_files())})
        return f"{source}.{sampling.steps}-{sampling.guidance:g}"

    @cached_property
    def images(self) -> Path:
        """Folder of the calibration images, written on first use."""
        folder = self.work / "calibration-images"
        write_calibration_images(folder)
        return folder

    def settings(self, row: Row) -> BuildSettings:
        """What the planner is asked for."""
        return recipe_settings(row.recipe, parse_target(row.target), **row.overrides)

    @contextmanager
    def pack(self, row: Row) -> Iterator[Pack]:
        """A pack that is there as long as the context.

        An interrupted calibration stays, and goes on when the same row is asked for again.
        """
        output = self.work / f"{row.full_name.replace('/', '_')}.qpack"
        try:
            self._build(output, self.settings(row), row.photos)
            yield open_pack(output)
        finally:
            shutil.rmtree(output, ignore_errors=True)

    @cached_property
    def sensitivity(self) -> SensitivityMap:
        """The network's sensitivities on generated pictures."""
        return self._sensitivity("sensitivity", ProbeSettings())

    def sensitivity_on(self, photos: int) -> SensitivityMap:
        """The same on so many calibration images; one random direction of each."""
        probe = ProbeSettings(self.images, photos, usual_cotangents(self.images))
        return self._sensitivity(f"sensitivity-on-{photos}", probe)

    def _sensitivity(self, name: str, probe: ProbeSettings) -> SensitivityMap:
        """Found on first use and kept."""
        path = self.work / f"{name}.{self._measured_on}.json"
        if not path.is_file():
            found = probe_checkpoint(
                self.checkpoint,
                None,
                self.base,
                probe,
                device=self.device,
                dtype=torch.float32,
            )
            write_sensitivity(path, found)
        return read_sensitivity(path)

    def moments(self, settings: BuildSettings, photos: int = 0) -> SecondMoments | None:
        """What the settings round weights by, kept from row to row.

        Args:
            settings: of the build.
            photos: how many calibration images; 0 for generated pictures.
        """
        sensitivity = None
        if settings.uses_sensitivity:
            sensitivity = self.sensitivity_on(photos) if photos else self.sensitivity
        on = f"-on-{photos}" if photos else ""
        by = "-by-sensitivity" if sensitivity else ""
        return find_moments(
            self.checkpoint,
            settings,
            self.base,
            ProbeSettings(self.images, photos) if photos else ProbeSettings(),
            sensitivity,
            device=self.device,
            dtype=torch.float32,
            keep=self.work / f"moments-{settings.modulation}{on}{by}.{self._measured_on}",
        )

    def _build(self, output: Path, settings: BuildSettings, photos: int) -> None:
        moments = self.moments(settings, photos)
        if settings.uses_sensitivity:
            build(
                self.checkpoint,
                output,
                settings,
                self.base,
                sensitivity=self.sensitivity_on(photos) if photos else self.sensitivity,
                moments=moments,
                force=True,
            )
        elif not settings.uses_calibration:
            build(self.checkpoint, output, settings, self.base, moments=moments, force=True)
        elif settings.searches_smoothing:
            calibration = self._unquantized_inputs(settings)
            build(
                self.checkpoint,
                output,
                settings,
                self.base,
                calibration=calibration,
                moments=moments,
                force=True,
            )
        else:
            run = CalibrationRun(self.images, device=self.device)
            try:
                build_calibrated(
                    self.checkpoint, output, settings, self.base, run, moments=moments, force=True
                )
            except UsageError:  # what is left over is of a row of that name with other settings
                run = replace(run, restart=True)
                build_calibrated(
                    self.checkpoint, output, settings, self.base, run, moments=moments, force=True
                )

    def _unquantized_inputs(self, settings: BuildSettings) -> Calibration:
        """What the unquantized network's layers are fed: the same for every row that smooths."""
        path = self.work / f"unquantized-inputs.{self._measured_on}.json"
        if not path.is_file():
            # Of this process alone: another may be at the same.
            with tempfile.TemporaryDirectory(dir=self.work) as work:
                run = CalibrationRun(self.images, device=self.device)
                measured = measure_inputs(
                    self.checkpoint, settings, self.base, run, Path(work) / "inputs"
                )
                write_calibration(path, measured.calibration)
        return read_calibration(path)

    def load(self, pack: Pack) -> Quantized:
        """The pack's network; everything is read, so that the pack may go afterwards."""
        network = network_from_pack(pack, device=self.device, dtype=torch.float32, backend=BACKEND)
        return Quantized(pack, network, BitSchedule(pack.bit_grid))


def content_of(pack: Pack, sampling: Mapping[str, Any]) -> str:
    """Hash of all that decides a pack's results: weights, bit grid, quantizer, sampling.

    Two rows with one hash are one network under two names.
    """
    manifest = pack.manifest
    decisive = [
        f"{name} {record.sha256}"
        for name, record in sorted(manifest.files.items())
        if name.startswith(("transformer", "modulation")) or name == "bit_grid.json"
    ]
    decisive += [repr(manifest.quantizer), repr(manifest.rotation), repr(sorted(sampling.items()))]
    return hashlib.sha256("\n".join(decisive).encode()).hexdigest()
