"""Vocabularies of the three text encoders, from the two layouts in which people have them.

    stable-diffusion-3.5-medium/  tokenizer/  tokenizer_2/  tokenizer_3/
    ComfyUI/comfy/                sd1_tokenizer/  text_encoders/t5_tokenizer/

In ComfyUI's, both CLIP encoders share one vocabulary. They differ in what fills up a short text:
CLIP-L's end-of-text token, CLIP-G's token 0.
"""

import json
from pathlib import Path

from runtime.base.linking import link
from runtime.prompts.encoders import ENCODER_FOLDERS
from schemas.errors import UsageError

_DIFFUSERS = ENCODER_FOLDERS[3:]
_COMFY_CLIP = "sd1_tokenizer"
_COMFY_T5 = ("text_encoders/t5_tokenizer", "t5_tokenizer")
_NOTES = ("tokenizer_config.json", "special_tokens_map.json")
"""Files that say which tokens are special; for CLIP they are written here."""
_CLIP_PADDING = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


def add_tokenizers(folder: Path, source: Path | None) -> None:
    """Put the three tokenizers into ``folder`` as diffusers has them.

    Raises:
        UsageError: ``source`` has neither layout.
        OSError: ``folder`` cannot be written.
    """
    if source is not None and all((source / name).is_dir() for name in _DIFFUSERS):
        for name in _DIFFUSERS:
            link(source / name, folder / name)
        return
    t5 = (
        next((source / name for name in _COMFY_T5 if (source / name).is_dir()), None)
        if (source is not None)
        else None
    )
    if source is None or t5 is None or not (source / _COMFY_CLIP).is_dir():
        raise UsageError(
            "the text encoders' files hold no vocabularies"
            + ("" if source is None else f", and {source} has none either"),
            hint="name a folder that has tokenizer, tokenizer_2 and tokenizer_3, or ComfyUI's"
            " folder comfy, with --tokenizers",
        )
    for name, padding in _CLIP_PADDING.items():
        (folder / name).mkdir()
        for file in sorted((source / _COMFY_CLIP).iterdir()):
            if file.name not in _NOTES:
                link(file, folder / name / file.name)
        notes = {"tokenizer_class": "CLIPTokenizer", "pad_token": padding}
        (folder / name / _NOTES[0]).write_text(json.dumps(notes), encoding="utf-8")
    link(t5, folder / _DIFFUSERS[2])
