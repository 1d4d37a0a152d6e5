"""Batches for a decoder: random windows of what networks made, and of photos."""

import torch
from torch import Tensor

from training.autoencoder import LATENT_NOISE
from training.generated import Generated
from training.prompts import NAMES

WINDOW = 24
"""Side of the windows, in latent pixels."""
PHOTO_SHARE = 0.375
"""Of a batch: latents of photos, which are what some prompt wanted, blurred ones too."""
DETAILED = tuple(NAMES.index(name) for name in ("natural", "sharp"))
"""Prompts that ask for all the detail there is."""
NATURAL = NAMES.index("natural")
NATURAL_SHARE = 0.4
"""Of a batch: windows of the default prompt, before the others are drawn from all prompts."""


def photos_of(count: int) -> int:
    """How many of a batch are latents of photos."""
    return round(PHOTO_SHARE * count)


class Windows:
    """Random windows of samples, by torch's random numbers.

    Args:
        samples: what networks made.
        device: where they lie, and where batches are made.
    """

    def __init__(self, samples: Generated, device: torch.device) -> None:
        self._latent, self._encoded, self._target, self._prompt = (
            tensor.to(device)
            for tensor in (samples.latent, samples.encoded, samples.target, samples.prompt)
        )
        self._natural = torch.nonzero(self._prompt == NATURAL)[:, 0]
        self._detailed = asks_for_detail(self._prompt)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """A batch.

        Returns:
            Scaled latents [count, C, w, w], the last `photos_of` ones of photos; pictures
            [count, 3, W, W], -1 ... 1; and which of them were made to have detail, bool [count].
        """
        side = self._latent.shape[-1]
        window = min(WINDOW, side)
        scale = self._target.shape[1] // side
        device = self._prompt.device
        chosen = draw_samples(torch.arange(len(self._prompt), device=device), self._natural, count)
        corners = torch.randint(side - window + 1, (2, count, 1), device=device)
        rows, columns = corners + torch.arange(window, device=device)
        made = count - photos_of(count)
        latents = torch.cat(
            [
                _cut(self._latent, chosen[:made], rows[:made], columns[:made]),
                _cut(self._encoded, chosen[made:], rows[made:], columns[made:]),
            ]
        ).float()
        latents[made:] += LATENT_NOISE * torch.randn_like(latents[made:])
        fine_rows, fine_columns = scale * corners + torch.arange(scale * window, device=device)
        pictures = self._target[
            chosen[:, None, None], fine_rows[:, :, None], fine_columns[:, None, :]
        ]
        images = pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        detailed = self._detailed[chosen]
        detailed[made:] = False
        return latents, images.contiguous(memory_format=torch.channels_last), detailed


def asks_for_detail(prompt: Tensor) -> Tensor:
    """Which prompts [n] ask for all the detail there is, bool [n]."""
    return torch.isin(prompt, torch.tensor(DETAILED, device=prompt.device))


def draw_samples(among: Tensor, natural: Tensor, count: int) -> Tensor:
    """Indices of samples [count], more often than not of the default prompt.

    Args:
        among: indices of all that may be drawn [n].
        natural: indices of those with the default prompt [k]; k may be 0.
        count: how many.
    """
    device = among.device
    chosen = among[torch.randint(len(among), (count,), device=device)]
    if not len(natural):
        return chosen
    preferred = natural[torch.randint(len(natural), (count,), device=device)]
    return torch.where(torch.rand(count, device=device) < NATURAL_SHARE, preferred, chosen)


def _cut(latents: Tensor, chosen: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Windows [k, C, w, w] of the ``chosen`` [k] of [n, C, h, w]; rows and columns [k, w]."""
    channels = torch.arange(latents.shape[1], device=latents.device)
    return latents[
        chosen[:, None, None, None],
        channels[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
