"""The commands that are killed: a calibrated build, and a batch of pictures."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schemas.manifest import SamplingDefaults
from tests.artifacts.make_pack import TINY, make_pack
from tests.planner.calibration_setup import make_setup

OPTIONS = ("--recipe", "q-dit4sr", "--global-rank", "2", "--local-rank", "2")
PICTURES = 12
KINDS = ("rgb.png", "rgba.png", "rgb.jpg", "deep.tif", "rgb.webp", "gray.png")
SAMPLING = SamplingDefaults(
    steps=2,
    guidance=3.0,
    shift=3.0,
    tile_latent=16,
    overlap_latent=4,
    min_side_px=16,
    color_fix="adain",
)


@dataclass(frozen=True)
class Workspace:
    """Folders of one command: what it writes to, its temporary files, its cache."""

    path: Path

    @property
    def out(self) -> Path:
        """Where results go."""
        return self.path / "out"

    def make(self) -> "Workspace":
        """Make the folders."""
        for folder in (self.out, self.path / "tmp", self.path / "cache"):
            folder.mkdir(parents=True)
        return self

    @property
    def environment(self) -> dict[str, str]:
        """What a process in this workspace is told of it."""
        return {
            "TMPDIR": str(self.path / "tmp"),
            "XDG_CACHE_HOME": str(self.path / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def content(self) -> dict[str, bytes]:
        """Everything that lies there, results and what is left over alike; folders end in a /."""
        return {
            f"{path.relative_to(self.path).as_posix()}/"
            if path.is_dir()
            else path.relative_to(self.path).as_posix(): b"" if path.is_dir() else path.read_bytes()
            for path in self.path.rglob("*")
        }


@dataclass(frozen=True)
class Scenario:
    """A command.

    Attributes:
        name: of the scenario.
        program: ``planner`` for ``qplan``, ``runtime`` for ``qrun``.
        arguments: of the command, by the folder it writes to.
    """

    name: str
    program: str
    arguments: Callable[[Path], list[str]]


def builds(folder: Path) -> Scenario:
    """``qplan build --calib``, with three photos."""
    setup = make_setup(folder / "setup")
    command = ["build", str(setup.checkpoint), "--base", str(setup.base), *OPTIONS]
    command += ["--calib", str(setup.images)]
    return Scenario("builds", "planner", lambda out: [*command, "-o", str(out / "a.qpack")])


def batches(folder: Path) -> Scenario:
    """``qrun upscale`` with a folder of pictures of several formats."""
    pack, photos = folder / "a.qpack", folder / "photos"
    config = TINY.model_copy(update={"num_layers": 1})
    make_pack(pack, config=config, changes={"sampling": SAMPLING})
    # In another process: the image library starts threads, which forks of this one would lack.
    writing = multiprocessing.get_context("fork").Process(target=_write_photos, args=(photos,))
    writing.start()
    writing.join()
    command = ["upscale", str(photos), "--pack", str(pack), "--backend", "reference"]
    return Scenario("batches", "runtime", lambda out: [*command, "-o", str(out)])


def _write_photos(folder: Path) -> None:
    from tests.fuzz.targets.pictures import pictures

    folder.mkdir()
    known = pictures()
    for number in range(PICTURES):
        name = KINDS[number % len(KINDS)]
        (folder / f"{number:02d}-{name}").write_bytes(known[name])


def shown(content: dict[str, bytes], other: dict[str, bytes]) -> str:
    """What differs between two workspaces, in a line."""
    more, fewer = sorted(set(content) - set(other)), sorted(set(other) - set(content))
    changed = sorted(name for name in set(content) & set(other) if content[name] != other[name])
    return json.dumps({"left over": more, "missing": fewer, "different": changed})
