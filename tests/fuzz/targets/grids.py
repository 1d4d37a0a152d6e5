"""Edited bit grids, given to ``qplan regrid``."""

from pathlib import Path
from random import Random

import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import verify_pack
from planner.regrid.edits import read_grid
from planner.regrid.regrid import regrid
from schemas.errors import UsageError
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.mutate.json_text import mutate_json
from tests.fuzz.targets.small_build import build_pack, network_files, write_checkpoint


class Grids:
    """The grid of a small pack, mutated; the pack is written again with it."""

    name = "grids"
    errors = (UsageError,)

    def prepare(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._file, self._output = folder / "edited.json", folder / "new.qpack"
        self._checkpoint = open_checkpoint(write_checkpoint(folder / "source"))
        self._pack = build_pack(self._checkpoint, folder / "a.qpack")
        self._valid = (folder / "a.qpack" / "bit_grid.json").read_text()
        self._known = network_files(folder / "a.qpack")
        if self.run(Case("nothing", {"edited.json": self._valid.encode()})) != EQUAL:
            raise WrongResultError("the same grid gives another pack")

    def make(self, rng: Random, index: int) -> Case:
        if rng.random() < 0.9:
            return Case("JSON", {"edited.json": mutate_json(self._valid, rng)})
        return Case("bytes", {"edited.json": mutate_bytes(self._valid.encode(), rng)})

    def run(self, case: Case) -> str:
        self._file.write_bytes(case.files["edited.json"])
        grid = read_grid(self._file)
        regrid(self._pack, self._output, grid, checkpoint=self._checkpoint, force=True)
        pack = verify_pack(self._output)
        if pack.bit_grid != grid:
            raise WrongResultError("the pack has another grid than was asked for")
        return EQUAL if network_files(self._output) == self._known else CHANGED
