"""A tiny Stable Diffusion 3.5 folder: autoencoder, scheduler, and three text encoders."""

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.artifacts.make_pack import TINY

CLIP_WIDTHS = (8, 12)
"""Hidden and projected width of both CLIP encoders: 20 together, the pooled width of ``TINY``."""
SMALLEST_VAE = {
    "block_out_channels": (4,),
    "norm_num_groups": 2,
    "latent_channels": 4,
    "layers_per_block": 1,
}
CHARACTERS = string.ascii_lowercase + string.digits + ".,!'-"


def make_base(
    path: Path,
    *,
    encoders: bool = True,
    clip_widths: tuple[int, int] = CLIP_WIDTHS,
    t5_width: int = TINY.joint_attention_dim,
    vae_config: Mapping[str, Any] = SMALLEST_VAE,
) -> Path:
    """Write the folder; its weights are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKL(**vae_config).save_pretrained(path / "vae")
        FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(path / "scheduler")
        if encoders:
            for suffix, width in zip(("", "_2"), clip_widths, strict=True):
                _clip(path, suffix, width)
            _t5(path, t5_width)
    return path


def make_embeddings(path: Path, *, seed: int = 0, **changes: Tensor) -> Path:
    """A file of ready prompt embeddings for ``TINY``, seven tokens long."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for side in ("positive", "negative"):
        tensors[f"{side}.embeds"] = torch.randn(7, TINY.joint_attention_dim, generator=generator)
        tensors[f"{side}.pooled"] = torch.randn(TINY.pooled_projection_dim, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors | changes, path)
    return path


def _clip(path: Path, suffix: str, width: int) -> None:
    vocabulary = [*CHARACTERS, *(f"{c}</w>" for c in CHARACTERS)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder = path / f"tokenizer{suffix}"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    end = len(vocabulary) - 1
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=max(1, width // 64),
        hidden_act="gelu" if suffix else "quick_gelu",
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    CLIPTextModelWithProjection(config).save_pretrained(path / f"text_encoder{suffix}")


def _t5(path: Path, width: int) -> None:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *CHARACTERS, *string.ascii_uppercase]
    tokenizer = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    folder = path / "tokenizer_3"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    notes = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps(notes))
    config = T5Config(
        vocab_size=len(pieces), d_model=width, d_kv=8, d_ff=16, num_layers=2, num_heads=2
    )
    T5EncoderModel(config).save_pretrained(path / "text_encoder_3")
