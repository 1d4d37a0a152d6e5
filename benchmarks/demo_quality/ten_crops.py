"""Ten crops side by side: the truth, the input, and what each method makes of it."""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from PIL import Image

from benchmarks.cases import contact_sheet
from benchmarks.demo_quality.methods import Method
from benchmarks.demo_quality.pictures import Pictures, from_file
from runtime.images.resizing import SCALE
from training.photos.manifest import read_manifest

CROPS = (
    "explore_world_music/mexico-2",
    "explore_world_music/italy-1",
    "chelsea-0",
    "erase/red_panda-0",
    "erase/kingfisher-1",
    "opencv-doc/scenetext_segmented_word03-1",
    "opencv-doc/scenetext06-3",
    "explore_monuments/neuschwansteinCastle-3",
    "plasma-workspace-wallpapers/EveningGlow-2",
    "lomiri-wallpapers-16.04/life_by_Aitzol_Berasategi-1",
)
"""Faces, fur, flat fields, text, buildings, oblique edges, foliage; all with a licence to show."""
QUALITY = 88
"""Of JPEG."""
SHIPPED = {"chelsea": "chelsea of scikit-image, by Stéfan van der Walt, CC0"}


def draw(pictures: Pictures, methods: Sequence[Method]) -> Image.Image:
    """The sheet: a crop a row."""
    cases = {case.name: case for case in pictures.cases}
    rows = [
        [
            cases[name].truth,
            F.interpolate(cases[name].small, scale_factor=SCALE, mode="nearest"),
            *(from_file(pictures.path(method, cases[name])) for method in methods),
        ]
        for name in CROPS
    ]
    return contact_sheet(rows, ["truth", "input", *(method.label for method in methods)])


def attributions(photos: Path) -> list[str]:
    """Where each crop comes from, who holds the rights, and the licence, in Markdown."""
    entries = {entry.key: entry for entry in read_manifest(photos)}
    lines = []
    for row, name in enumerate(CROPS, start=1):
        key = name.rpartition("-")[0]
        if key in SHIPPED:
            lines.append(f"{row}. {SHIPPED[key]}")
            continue
        entry = entries[key]
        holder = entry.holder or "holder not named"
        file = Path(entry.file).name
        lines.append(f"{row}. `{file}` of Debian's {entry.package}: {holder}; {entry.licence}")
    return lines
