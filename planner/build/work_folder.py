"""What an unfinished build has finished, kept beside its output until the output is there.

    plan.json        what all of this is for: source, settings, versions
    variances.json   of the layers that were measured
    layers/          quantized layers, one file each
    weights.qpack    all of them, where a calibration follows
    image-00000 ...  what single calibration images gave
    learning.pt      of a pack that learns: the stages that it has learned

A command that is interrupted, or killed, goes on from here when it is repeated. Every file is
written beside its place and then renamed, and carries a hash; what is damaged is made anew. A
folder without a sound plan is one whose making or removal was cut short; it is cleared.

Numbers may differ in their last bits between processors. Those are no part of the plan: who goes on
elsewhere gets a pack as good as any, but not the same bytes.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifacts.codec.hadamard import Rotation
from artifacts.files.output_lock import hidden_beside, output_lock
from artifacts.files.safetensors_io import Header
from artifacts.files.whole_file import write_bytes
from artifacts.pack.layer_file import StoredLayer, read_layer, write_layer
from artifacts.pack.writer import remove_stale_partials
from planner.settings import BuildSettings
from planner.weights.layer import QuantizedLayer
from schemas.errors import CheckpointError, PackError, ResourceError, UsageError
from schemas.json_io import format_json, read_json_file
from schemas.manifest import Source

PLAN = "plan.json"
VARIANCES = "variances.json"
LAYERS = "layers"
WEIGHTS = "weights.qpack"
LEARNED = "learning.pt"
LONGEST_SHOWN = 40
"""Of two values that differ, in characters; longer ones are only named."""

Plan = Mapping[str, Any]
"""Everything that the content of a work folder depends on, JSON-able."""


def work_folder(output: Path) -> Path:
    """Where an unfinished build of ``output`` is kept."""
    return hidden_beside(output, "unfinished")


def make_plan(source: Source, settings: BuildSettings, **more: Any) -> Plan:
    """The plan of a build, with what else its results depend on."""
    return {
        "source": [file.sha256 for file in source.files],
        "settings": {"recipe": settings.recipe, **settings.recorded()},
        "versions": {"qdit4sr": version("qdit4sr"), "torch": torch.__version__},
        **more,
    }


@contextlib.contextmanager
def told_of_disk_errors(folder: Path) -> Iterator[None]:
    """Say which folder of unfinished work the block could not write, and what to do.

    Raises:
        ResourceError: for an OSError in the block.
    """
    try:
        yield
    except OSError as cause:
        raise ResourceError(
            f"{folder}: cannot be written: {cause.strerror or cause}",
            hint="free disk space and repeat the command; what is finished is kept",
        ) from cause


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Have ``output`` and its work folder for this process alone while the block runs.

    Raises:
        ResourceError: on entering: another process has them.
        KeyboardInterrupt: from the block, with a text that says how to go on.
    """
    with output_lock(output):
        remove_stale_partials(output)
        try:
            yield
        except KeyboardInterrupt as stop:
            work = WorkFolder(work_folder(output))
            if str(stop) or not work.has_plan:
                raise
            raise KeyboardInterrupt(
                f"{work.content()} kept; the same command goes on from there"
            ) from None


@dataclass(frozen=True)
class WorkFolder:
    """The work folder of one output.

    Attributes:
        path: the folder.
        resume: say so where there is nothing to go on with.
        restart: throw away what is there.
        report: told in one line what is gone on with.
    """

    path: Path
    resume: bool = False
    restart: bool = False
    report: Callable[[str], None] = lambda _line: None

    @property
    def has_plan(self) -> bool:
        """Whether there is anything to go on with."""
        return self.plan() is not None

    def plan(self) -> Plan | None:
        """What the folder is for; None where there is no plan that can be read."""
        return _read(self.path / PLAN)

    def open(self, plan: Plan) -> None:
        """Make the folder, or make sure that what it holds belongs to ``plan``.

        Raises:
            UsageError: it belongs to another one; names what differs.
            ResourceError: it cannot be written.
        """
        known = None if self.restart else self.plan()
        if known is None:
            if self.resume:
                self.report("nothing to resume: starting from the beginning")
            self.remove()
            with told_of_disk_errors(self.path):
                self.path.mkdir()
                write_bytes(self.path / PLAN, _sealed(plan), sole_writer=True)
            return
        differing = _differences(known, plan)
        if differing:
            raise UsageError(
                f"the unfinished work in {self.path} differs in {', '.join(differing)}",
                hint="repeat its command to go on with it, or start anew with --restart",
            )
        self.report(f"going on with an unfinished build: {self.content()} kept")

    def remove(self) -> None:
        """Remove the folder with all it holds."""
        # The plan first: should this be cut short, the rest must not pass for what it was.
        with contextlib.suppress(OSError):
            (self.path / PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def removed_when_refused(self) -> Iterator[None]:
        """Remove the folder when the block refuses source or settings: it would do so again."""
        try:
            yield
        except (CheckpointError, UsageError):
            self.remove()
            raise

    def content(self) -> str:
        """What is finished, in words."""
        layers = len([*self.path.glob(f"{LAYERS}/*.safetensors")])
        images = len([*self.path.glob("image-*.safetensors")])
        found = "all" if (self.path / WEIGHTS).is_dir() else str(layers)
        if (self.path / LEARNED).is_file():
            return "what was learned"
        shown = f"{found} quantized layers"
        return f"{shown} and {images} calibration images" if images else shown

    def layer(
        self, name: str, bits: int, rotation: Rotation, signs: Tensor | None
    ) -> StoredLayer | None:
        """A finished layer, or None where there is none, or a damaged one.

        Args:
            name: the layer's name in the network.
            bits: the weight bits that it must have.
            rotation: of its inputs.
            signs: of its rotation, float32 [in], or None.
        """
        try:
            found = read_layer(self._layer_file(name), name, rotation, signs)
        except PackError:
            return None
        return found if found.record.weight_bits == bits else None

    def keep_layer(self, layer: QuantizedLayer) -> Header:
        """Keep a finished layer; returns the header of its file.

        Raises:
            ResourceError: the disk is full or fails.
        """
        file = self._layer_file(layer.weight.name)
        with told_of_disk_errors(self.path):
            file.parent.mkdir(exist_ok=True)
            return write_layer(file, layer.weight, layer.record)

    def variances(self) -> dict[str, float]:
        """Layer -> variance, of the layers that were measured."""
        return _read(self.path / VARIANCES) or {}

    def keep_variances(self, values: Mapping[str, float]) -> None:
        """Keep the variances measured so far.

        Raises:
            ResourceError: the disk is full or fails.
        """
        with told_of_disk_errors(self.path):
            write_bytes(self.path / VARIANCES, _sealed(values), sole_writer=True)

    def remove_layers(self) -> None:
        """Remove the single layers, once they are joined."""
        shutil.rmtree(self.path / LAYERS, ignore_errors=True)

    def _layer_file(self, name: str) -> Path:
        return self.path / LAYERS / f"{name}.safetensors"


def _differences(known: Plan, plan: Plan) -> list[str]:
    """What two plans differ in, with both values where they are short."""
    found = []
    for key in sorted({*known, *plan}):
        old, new = known.get(key), plan.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new)
        elif old != new:
            short = max(len(str(old)), len(str(new))) <= LONGEST_SHOWN
            found.append(f"{key} {old} (now {new})" if short else key)
    return found


def _sealed(values: Mapping[str, Any]) -> bytes:
    """A JSON object beside its hash."""
    return format_json({"values": dict(values), "sha256": _digest(values)}).encode("utf-8")


def _read(file: Path) -> dict[str, Any] | None:
    """The JSON object of `_sealed`, or None where there is none, or a damaged one."""
    try:
        content = read_json_file(file, where=str(file), error=PackError)
    except PackError:
        return None
    values = content.get("values") if isinstance(content, dict) else None
    if not isinstance(values, dict) or content.get("sha256") != _digest(values):
        return None
    return values


def _digest(values: object) -> str:
    return hashlib.sha256(format_json(values).encode("utf-8")).hexdigest()
