"""VOSR's one-step network as a network family (arXiv 2604.03225); docs/families.md has facts."""

from artifacts.family import NO_MODULATIONS, ConfigFile, Family, RebuiltTensor
from artifacts.vosr.config import VAE_FACTOR, VOSR_05B, VOSR_14B, VosrConfig
from artifacts.vosr.from_shapes import config_from_shapes, missing_names
from artifacts.vosr.layout import (
    ROTARY_COSINES,
    ROTARY_SINES,
    block_linears,
    condition_shapes,
    latent_size,
    tensor_shapes,
)
from artifacts.vosr.rotary_table import are_cosines, are_sines, cosines, sines
from artifacts.vosr.tokens import attention_work, streams, tokens_through
from schemas.manifest import SamplingDefaults

FAMILY = Family(
    name="vosr",
    title="VOSR",
    variants=("os",),  # one step, as published folders are called
    config_type=VosrConfig,
    describe=lambda config: f"{config.depth} blocks of width {config.dim}",
    licence_note="VOSR's code is published under\nApache-2.0; its weights, its autoencoder and"
    " DINOv2 each have a licence of their own.",
    presets={"vosr-0.5b": VOSR_05B, "vosr-1.4b": VOSR_14B},
    sampling=SamplingDefaults(
        steps=1,
        guidance=1.0,  # distilled into the network
        shift=1.0,
        tile_latent=64,
        overlap_latent=8,
        min_side_px=512,
        color_fix="adain",
    ),
    lacks=missing_names,
    is_base_model=lambda _shapes: False,
    config_from_shapes=config_from_shapes,
    tensor_shapes=tensor_shapes,
    quantizable=block_linears,
    unread_tensors=lambda _config, _variant: frozenset(),
    modulations=lambda _config: NO_MODULATIONS,  # two layers serve all blocks: nothing to gain
    rebuilt={
        ROTARY_COSINES: RebuiltTensor(cosines, are_cosines),
        ROTARY_SINES: RebuiltTensor(sines, are_sines),
    },
    latent_size=latent_size,
    prompt_shapes=condition_shapes,
    text_tokens=VOSR_05B.feature_tokens,
    vae_factor=VAE_FACTOR,
    streams=streams,
    tokens_through=tokens_through,
    attention_work=attention_work,
    runtime="runtime.vosr.family",
    hub_name="CSWRY/VOSR",
    condition="picture",
    base_title="Stable Diffusion 2.1",
    config_file=ConfigFile("args.json", shared=True),
    weight_folders=("clean_weights", "checkpoints"),
)
