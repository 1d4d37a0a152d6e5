"""Test pictures that benchmarks share: held-out crops with their truth, PSNR, contact sheets."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.degradation import Degradation
from benchmarks.photos import held_out_photos

EXACT_DB = 200.0
"""Stands for "no difference at all": JSON has no infinity, and float32 never gets this close."""


@dataclass(frozen=True)
class Case:
    """One crop: its name, the truth and the degraded input, [1, 3, H, W] in 0 ... 1."""

    name: str
    truth: Tensor
    small: Tensor


def held_out_cases(count: int, crop_px: int, seed: int) -> list[Case]:
    """Degraded crops of the held-out photos, taken in turn; no two share a pixel.

    Every photo is cut into a grid of crops at a random offset, and crops are taken from it in a
    random order. The first n of many crops are the same as n crops.

    Args:
        count: how many.
        crop_px: side of the truth, a multiple of 4.
        seed: of the places and the degradations.

    Raises:
        ValueError: the photos do not hold as many.
    """
    queues: dict[str, list[tuple[int, int]]] = {}
    photos = held_out_photos()
    for index, (name, photo) in enumerate(photos.items()):
        rng = np.random.default_rng([seed, index])
        rows, columns = (side // crop_px for side in photo.shape[:2])
        top, left = (int(rng.integers(side % crop_px + 1)) for side in photo.shape[:2])
        places = [
            (top + r * crop_px, left + c * crop_px) for r in range(rows) for c in range(columns)
        ]
        queues[name] = [places[i] for i in rng.permutation(len(places))]
    available = sum(map(len, queues.values()))
    if count > available:
        raise ValueError(f"{count} crops of {crop_px} px: the held-out photos hold {available}")

    cases: list[Case] = []
    for turn in range(max(map(len, queues.values()))):
        for index, (name, places) in enumerate(queues.items()):
            if turn < len(places) and len(cases) < count:
                top, left = places[turn]
                truth = photos[name][top : top + crop_px, left : left + crop_px]
                # A generator of its own: how one crop is degraded hangs on no other crop.
                rng = np.random.default_rng([seed, index, turn])
                small = Degradation.draw(rng).apply(truth)
                cases.append(Case(f"{name}-{turn}", to_tensor(truth), to_tensor(small)))
    return cases


def psnr_db(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise of two pictures in 0 ... 1, all channels together; at most EXACT_DB."""
    mse = float((a - b).square().mean())
    return min(-10 * math.log10(mse), EXACT_DB) if mse else EXACT_DB


def contact_sheet(rows: list[list[Tensor]], labels: list[str]) -> Image.Image:
    """Pictures of one size in rows, a label over every column."""
    side, gap, heading = rows[0][0].shape[-1], 4, 16
    columns = len(labels)
    size = (columns * (side + gap), heading + len(rows) * (side + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(labels):
        draw.text((column * (side + gap) + 4, 2), label, fill="black")
        for row, pictures in enumerate(rows):
            pixels = pictures[column][0].permute(1, 2, 0).clamp(0, 1).mul(255).round()
            picture = Image.fromarray(pixels.to(torch.uint8).numpy())
            sheet.paste(picture, (column * (side + gap), heading + row * (side + gap)))
    return sheet


def to_tensor(image: np.ndarray) -> Tensor:
    """A picture [H, W, 3] as float32 [1, 3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None]
