"""DINOv2, whose features VOSR's network reads, from transformers (the extra ``vosr``).

The picture, enlarged, is resized to a square by bicubic interpolation without antialiasing, clipped
to 0 ... 1 and normed by ImageNet's mean and deviation. Features are the outputs of one block
without the class token; those of the last block are normed first. All of it is in float32.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from artifacts.family import IMAGE_ENCODER_FOLDER as FOLDER
from artifacts.vosr.config import ENCODER_PATCH_PX, VosrConfig
from runtime.pretrained import load_pretrained
from schemas.errors import CheckpointError, UsageError

HINT = f"give --base with a folder that holds vae/ and {FOLDER}/, which is a DINOv2 of transformers"
PIP_HINT = "pip install 'qdit4sr[vosr]'"
MODEL_TYPE = "dinov2"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_image_encoder(
    folders: Sequence[Path], config: VosrConfig, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """What makes features [m, F], float32, of a picture [1, 3, H, W], 0 ... 1.

    Args:
        folders: may hold an encoder; the first that has one is taken.
        config: of the network that reads the features.
        device: where the encoder runs.

    Raises:
        UsageError: there is no encoder, or transformers is not installed.
        CheckpointError: the encoder cannot be loaded, or is not the network's.
    """
    folder = next((f for f in folders if (f / FOLDER / "config.json").is_file()), None)
    if folder is None:
        raise UsageError("there is no image encoder to make the picture's features", hint=HINT)
    try:
        import transformers  # noqa: PLC0415  (an extra, and seconds to import)

        transformers.utils.logging.disable_progress_bar()
        model = load_pretrained(transformers.Dinov2Model, folder, FOLDER, torch.float32)
    except ImportError as cause:
        raise UsageError(
            "features of the picture need the package transformers", hint=PIP_HINT
        ) from cause
    _check_fit(folder, model.config, config)
    model.to(device).requires_grad_(False)
    last = model.config.num_hidden_layers - 1

    @torch.inference_mode()
    def features(picture: Tensor) -> Tensor:
        pixels = prepare(picture.to(device), config.dinov2_size)
        outputs = model(pixel_values=pixels, output_hidden_states=True)
        if config.encoder_block == last:
            tokens = outputs.last_hidden_state
        else:
            tokens = outputs.hidden_states[config.encoder_block + 1]  # the first is no block's
        patches: Tensor = tokens[0, 1:]
        return patches

    return features


def prepare(picture: Tensor, side: int) -> Tensor:
    """A picture [1, 3, H, W], 0 ... 1, as the encoder takes it [1, 3, side, side]."""
    square = F.interpolate(picture.float(), (side, side), mode="bicubic").clip(0, 1)
    mean, deviation = (square.new_tensor(x)[:, None, None] for x in (_MEAN, _DEVIATION))
    return (square - mean) / deviation


def _check_fit(folder: Path, encoder: "object", config: VosrConfig) -> None:
    """Make sure that the encoder gives the features that the network was trained with."""
    kind = getattr(encoder, "model_type", None)
    if kind != MODEL_TYPE:
        raise CheckpointError(f"{folder / FOLDER}: a model of type {kind}, not {MODEL_TYPE}")
    for what, found, wanted in (
        ("channels", getattr(encoder, "hidden_size", 0), config.enc_dim),
        ("px a patch", getattr(encoder, "patch_size", 0), ENCODER_PATCH_PX),
    ):
        if found != wanted:
            raise CheckpointError(
                f"{folder / FOLDER}: features of {found} {what}, but the network reads {wanted}",
                hint="this is another DINOv2 than the network was trained with",
            )
    blocks = getattr(encoder, "num_hidden_layers", 0)
    if config.encoder_block >= blocks:
        raise CheckpointError(
            f"{folder / FOLDER}: {blocks} blocks, but the network reads the output of block"
            f" {config.encoder_block}, counted from 0"
        )
