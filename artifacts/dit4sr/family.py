"""DiT4SR as a network family (arXiv 2503.23580): one record that the rest of the project reads."""

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.from_shapes import config_from_shapes, is_stable_diffusion_3, missing_names
from artifacts.dit4sr.layout import (
    POSITION_TABLE,
    block_linears,
    latent_size,
    modulations,
    prompt_shapes,
    tensor_shapes,
    unread_tensors,
)
from artifacts.dit4sr.position_table import is_sincos, sincos_table
from artifacts.dit4sr.tokens import attention_work, streams, tokens_through
from artifacts.family import Family, RebuiltTensor
from schemas.manifest import SamplingDefaults

FAMILY = Family(
    name="dit4sr",
    title="DiT4SR",
    variants=("q", "f", "r1"),
    config_type=TransformerConfig,
    describe=lambda config: f"{config.num_layers} blocks of width {config.hidden_size}",
    licence_note="DiT4SR's published weights and the Stable Diffusion\n3.5 base each have a licence"
    " of their own.",
    presets={"dit4sr": TransformerConfig()},
    sampling=SamplingDefaults(
        steps=40,
        guidance=8.0,
        shift=3.0,
        tile_latent=64,
        overlap_latent=24,
        min_side_px=512,
        color_fix="wavelet",  # closer to the input's colours than adain: docs/results/color_fix.md
    ),
    lacks=missing_names,
    is_base_model=is_stable_diffusion_3,
    config_from_shapes=config_from_shapes,
    tensor_shapes=tensor_shapes,
    quantizable=block_linears,
    unread_tensors=unread_tensors,
    modulations=modulations,
    rebuilt={POSITION_TABLE: RebuiltTensor(sincos_table, is_sincos)},
    latent_size=latent_size,
    prompt_shapes=prompt_shapes,
    text_tokens=333,  # 77 by CLIP and 256 by T5, as Stable Diffusion 3 joins them
    vae_factor=8,
    streams=streams,
    tokens_through=tokens_through,
    attention_work=attention_work,
    runtime="runtime.dit4sr.family",
    hub_name="acceptee/DiT4SR",
    base_title="Stable Diffusion 3.5",
)
