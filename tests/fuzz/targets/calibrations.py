"""Calibration files, given to ``qplan build``."""

from pathlib import Path
from random import Random

import torch

from artifacts.checkpoint.reader import open_checkpoint
from planner.build.base_model import find_base_model
from planner.build.calibrated_build import CalibrationRun, measure_inputs
from planner.calibrate.calibration_file import read_calibration
from planner.calibrate.settings import CalibrationSettings
from schemas.errors import UsageError
from schemas.json_io import dump_json
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.mutate.json_text import mutate_json, mutate_member
from tests.fuzz.targets.pictures import pictures
from tests.fuzz.targets.small_build import SETTINGS, build_pack, network_files, write_checkpoint


class Calibrations:
    """The calibration of a small network, mutated; a pack is built with it."""

    name = "calibrations"
    errors = (UsageError,)

    def prepare(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._file, self._output = folder / "calibration.json", folder / "a.qpack"
        self._checkpoint = open_checkpoint(write_checkpoint(folder / "source"))
        photos = folder / "photos"
        photos.mkdir()
        (photos / "a.png").write_bytes(pictures()["rgb.png"])
        run = CalibrationRun(photos, CalibrationSettings(crop_px=4))
        base = find_base_model(self._checkpoint, None)
        found = measure_inputs(self._checkpoint, SETTINGS, base, run, folder / "work")
        self._valid = dump_json(found.calibration).decode()
        self._file.write_text(self._valid)
        self._known = self._build()

    def make(self, rng: Random, index: int) -> Case:
        kind = rng.random()
        if kind < 0.5:
            what, mutated = "mean_squares", mutate_member(self._valid, ("mean_squares",), rng)
        elif kind < 0.95:
            what, mutated = "JSON", mutate_json(self._valid, rng)
        else:
            what, mutated = "bytes", mutate_bytes(self._valid.encode(), rng)
        return Case(what, {"calibration.json": mutated})

    def run(self, case: Case) -> str:
        self._file.write_bytes(case.files["calibration.json"])
        return EQUAL if self._build() == self._known else CHANGED

    def _build(self) -> dict[str, bytes]:
        pack = build_pack(self._checkpoint, self._output, read_calibration(self._file))
        reached, target = pack.manifest.reached, pack.manifest.target
        if reached.activation_bits > target.activation_bits:
            raise WrongResultError(f"{reached} is above {target}")
        return network_files(self._output)
