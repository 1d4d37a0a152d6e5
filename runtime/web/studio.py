"""The work behind the page: one model in memory, one picture at a time, results kept on disk.

Nothing here knows the page's library, so that it is tested without one.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from runtime.images.pixels import to_pixels
from runtime.model_identity import pack_facts
from runtime.pipeline import Pipeline
from runtime.prompts.texts import PromptTexts
from runtime.sampling.autoencoder import decode
from runtime.sampling.settings import SamplingOptions
from runtime.sampling.table_steps import check_table_steps
from runtime.upscale import upscale_file
from schemas.errors import UsageError

PREVIEWS = 4
"""Pictures of the latent on its way, at most."""
PREVIEW_SIDE = 32
"""Latent pixels of a preview's longer side; decoding it takes a moment whatever the picture."""

Load = Callable[[Path, PromptTexts], Pipeline]
Preview = Callable[[int, int, NDArray[np.uint8] | None], None]
"""Told of the steps done, the steps in all, and what the picture looks like, or None."""


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for.

    Attributes:
        pack: name of the model.
        steps: None for the model's own.
        prompt: an empty string for the model's own.
        fidelity: 0 ... 1.
        seed: of the noise.
    """

    pack: str
    steps: int | None = None
    prompt: str = ""
    fidelity: float = 0.0
    seed: int = 0


class Studio:
    """Enlarges pictures one after another; what is finished stays in a folder.

    Args:
        packs: name -> place of every model that may be asked for.
        folder: of the results; a wish that was granted before is answered from there.
        load: gets a model into memory, with prompts in place of its own.
        max_pixels: an input with more is refused.
    """

    def __init__(
        self, packs: Mapping[str, Path], folder: Path, load: Load, *, max_pixels: int
    ) -> None:
        self.packs = dict(packs)
        self.folder = folder
        self._load = load
        self.max_pixels = max_pixels
        self._turn = threading.Lock()
        self._loaded: tuple[str, str, Pipeline] | None = None

    def enlarge(self, image: Path, wish: Wish, tell: Preview = lambda *_: None) -> Path:
        """Enlarge a picture four times.

        Args:
            image: a file.
            wish: what is asked for.
            tell: called after every step.

        Returns:
            The result, a PNG, whole.

        Raises:
            ImageError: it is no image, or too large.
            UsageError: there is no such model, or it cannot run with the wish.
            ResourceError: memory ran out, or the result cannot be written.
        """
        if wish.pack not in self.packs:
            raise UsageError(f"there is no pack {wish.pack!r}")
        options = SamplingOptions(steps=wish.steps, seed=wish.seed, fidelity=wish.fidelity)
        options.check()
        model, _ = pack_facts(self.packs[wish.pack])
        content = hashlib.sha256(image.read_bytes()).hexdigest()[:16]
        words = {"pack": model, "input": content, "prompt": wish.prompt.strip()}
        facts = {**asdict(wish), **words}
        record = {key: value for key, value in facts.items() if value not in (None, "")}
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
        output = self.folder / f"{image.stem[:64]}-{name}.png"
        with self._turn:
            if not output.is_file():
                pipeline = self._pipeline(wish)
                settings = options.settings(
                    pipeline.sampling,
                    patch_size=pipeline.patch_size,
                    largest_tile=pipeline.largest_tile,
                )
                check_table_steps(pipeline.table, settings)
                self.folder.mkdir(parents=True, exist_ok=True)
                watch = _Watch(pipeline, tell)
                upscale_file(
                    pipeline,
                    image,
                    output,
                    settings,
                    made_with=record,
                    max_pixels=self.max_pixels,
                    progress=watch.progress,
                    on_latent=watch.latent,
                )
        return output

    def finished(self, limit: int = 12) -> list[Path]:
        """The latest results, newest first."""
        files = sorted(self.folder.glob("*.png"), key=lambda file: -file.stat().st_mtime_ns)
        return files[:limit]

    def _pipeline(self, wish: Wish) -> Pipeline:
        """The model of a wish; the one before is let go first."""
        prompt = wish.prompt.strip()
        if self._loaded is None or self._loaded[:2] != (wish.pack, prompt):
            self._loaded = None
            pipeline = self._load(self.packs[wish.pack], PromptTexts(prompt or None))
            self._loaded = (wish.pack, prompt, pipeline)
        return self._loaded[2]


class _Watch:
    """Tells of steps, and decodes a small picture of the latent every few of them."""

    def __init__(self, pipeline: Pipeline, tell: Preview) -> None:
        self._pipeline = pipeline
        self._tell = tell
        self._latent: Tensor | None = None

    def latent(self, _step: int, _timestep: float, latent: Tensor) -> Tensor:
        """Keep the latent until the step is told of."""
        self._latent = latent
        return latent

    def progress(self, done: int, total: int) -> None:
        """Tell of a step."""
        picture = None
        if self._latent is not None and done < total and done % max(1, total // PREVIEWS) == 0:
            picture = to_pixels(_small_picture(self._pipeline, self._latent))
        self._tell(done, total, picture)


@torch.inference_mode()
def _small_picture(pipeline: Pipeline, latent: Tensor) -> Tensor:
    """A preview float32 [1, 3, h, w] of ``latent``, averaged to `PREVIEW_SIDE`."""
    height, width = latent.shape[-2:]
    share = min(1.0, PREVIEW_SIDE / max(height, width))
    size = max(1, round(share * height)), max(1, round(share * width))
    return decode(pipeline, F.interpolate(latent, size, mode="area"))
