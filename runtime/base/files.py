"""What a user names as the base model: a folder, or the single files that ComfyUI works with."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BaseFiles:
    """Where the parts beside the transformer come from.

    Attributes:
        base: a Stable Diffusion 3.5 folder as diffusers has it, or a single file that holds the
            autoencoder.
        clip_l, clip_g, t5xxl: single files of the three text encoders.
        tokenizers: a folder with their vocabularies; where it is None, ``base`` must have them.
    """

    base: Path | None = None
    clip_l: Path | None = None
    clip_g: Path | None = None
    t5xxl: Path | None = None
    tokenizers: Path | None = None

    @property
    def encoders(self) -> tuple[Path | None, Path | None, Path | None]:
        """The files of the text encoders, in the order of a Stable Diffusion 3.5 folder."""
        return self.clip_l, self.clip_g, self.t5xxl
