"""Fetches a Debian package and unpacks it, without installing it."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Unpacked:
    """An unpacked package.

    Attributes:
        name: of the package.
        version: as its file name gives it.
        root: folder that holds what would be installed under ``/``.
    """

    name: str
    version: str
    root: Path

    def copyright_text(self) -> str:
        """The machine-readable copyright file."""
        return (self.root / "usr/share/doc" / self.name / "copyright").read_text("utf-8")


def unpack(package: str, cache: Path) -> Unpacked:
    """Unpack ``package`` below ``cache``; a ``.deb`` that lies there already is not fetched again.

    Args:
        package: name of the package.
        cache: existing folder for the ``.deb`` and the unpacked files.
    """
    files = sorted(cache.glob(f"{package}_*.deb"))
    if not files:
        subprocess.run(["apt-get", "download", package], cwd=cache, check=True)
        files = sorted(cache.glob(f"{package}_*.deb"))
    file = files[-1]
    root = cache / "unpacked" / file.stem
    if not root.exists():
        partial = root.with_name(root.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", str(file), str(partial)], check=True)
        partial.rename(root)
    version = file.stem.split("_")[1].replace("%3a", ":")
    return Unpacked(package, version, root)
