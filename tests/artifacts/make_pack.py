"""A tiny valid pack with random content, for every test that needs one."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from artifacts.autoencoder.config import AutoencoderConfig
from artifacts.autoencoder.layout import tensor_shapes as autoencoder_shapes
from artifacts.codec.bitpack import pack_codes
from artifacts.codec.factor_pair import store_factors
from artifacts.codec.gaussian_quantizer import quantize_rows
from artifacts.codec.hadamard import Rotation, random_signs
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import (
    POSITION_TABLE,
    block_linears,
    modulations,
    tensor_shapes,
    unread_tensors,
)
from artifacts.family import Architecture
from artifacts.files.safetensors_io import Entry, write_safetensors
from artifacts.pack.modulation import pooled_prompts
from artifacts.pack.writer import SHARD_BYTES, PackWriter
from planner.timesteps import sampling_timesteps
from schemas.bit_grid import BitGrid, LayerBits, MeanBitWidths
from schemas.manifest import (
    LayerRecord,
    Manifest,
    ModulationRecord,
    Producer,
    QuantizerRecord,
    RecipeRecord,
    RotationRecord,
    SamplingDefaults,
    Source,
    SourceFile,
    TransformerBytes,
    oldest_version,
)

TINY = TransformerConfig(
    sample_size=16,
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=24,
    caption_projection_dim=32,
    pooled_projection_dim=20,
    pos_embed_max_size=8,
    dual_attention_layers=(0,),
)
TIMESTEPS = (900.0, 500.0, 100.0)
PROMPT_TOKENS = 5
SIGN_SEED = 11


def random_weight(
    name: str,
    out_features: int,
    in_features: int,
    *,
    bits: int = 4,
    rank: int = 2,
    block: tuple[int, int] | None = (4, 8),
    factor_bits: int = 16,
    signs: bool = True,
    smoothing: bool = False,
    seed: int = 0,
) -> QuantizedWeight:
    """A quantized layer of normal values of a transformer's usual size (0.02)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    codes, scale = quantize_rows(0.02 * normal(out_features, in_features), bits)
    rotation = Rotation.for_size(in_features)
    signed = signs and not rotation.is_identity
    factors: dict[str, Tensor | None] = {}
    if rank:
        up, down = 0.05 * normal(out_features, rank), normal(rank, in_features)
        stored = store_factors(up.mT, down, factor_bits)
        factors["global_up"] = stored.up.mT.contiguous()
        factors |= {"global_down": stored.down, "global_scale": stored.scale}
    if block is not None:
        grid = (out_features // block[0], in_features // block[1])
        up, down = 0.02 * normal(*grid, block[0]), normal(*grid, block[1])
        stored = store_factors(up, down, factor_bits)
        factors |= {f"local_{side}": getattr(stored, side) for side in stored._fields}
    return QuantizedWeight(
        name=name,
        out_features=out_features,
        in_features=in_features,
        weight_bits=bits,
        codes=pack_codes(codes, bits),
        scale=scale,
        rotation=rotation,
        bias=(0.02 * normal(out_features)).bfloat16(),
        signs=random_signs(in_features, SIGN_SEED) if signed else None,
        smoothing=normal(in_features).exp() if smoothing else None,
        **factors,
    )


def write_autoencoder(folder: Path, *, latent_channels: int, seed: int = 0) -> None:
    """Write an autoencoder of random weights, as diffusers would; a latent pixel spans 2 px."""
    config = AutoencoderConfig(
        block_out_channels=(2, 2),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=1,
        latent_channels=latent_channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: Entry.of(0.1 * torch.randn(shape, generator=generator))
        for name, shape in autoencoder_shapes(config).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = {"_class_name": "AutoencoderKL", **config.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(content))
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", tensors)


def make_pack(
    path: Path,
    *,
    config: TransformerConfig = TINY,
    variant: str = "q",
    signs: bool = True,
    factor_bits: int = 16,
    unquantized: tuple[str, ...] = (),
    modulation: str = "weights",
    companions: bool = True,
    prompts: bool = True,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    changes: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Manifest:
    """Write a pack whose layers cycle through 2, 3, 4, 5 and 8 bits and all kinds of factors.

    Those of 8 bits are smoothed.

    Args:
        path: where to.
        config, variant: the network.
        signs: random rotation signs.
        factor_bits: of all factors.
        unquantized: layers kept in 16 bits.
        modulation: ``table`` or ``both`` for one of the steps that the pack is sampled with.
        companions: with a VAE of random weights and a scheduler.
        prompts: with prompt embeddings.
        force, shard_bytes: of the writer.
        changes: fields of the manifest to set last, unchecked.
        seed: of all values.
    """
    generator = torch.Generator().manual_seed(seed)
    omitted = unread_tensors(config, variant)
    sampling = SamplingDefaults(
        steps=4, guidance=3.0, shift=3.0, tile_latent=16, overlap_latent=4, min_side_px=64
    )
    kinds = [(4, 2, (4, 4)), (3, 0, (2, 4)), (5, 3, None), (8, 0, None), (2, 1, (4, 2))]
    smoothed = len(kinds) - 2
    records: dict[str, LayerRecord] = {}
    bits: dict[str, LayerBits] = {}
    stored = {n: s for n, s in tensor_shapes(config).items() if n not in omitted}
    del stored[POSITION_TABLE]
    tabled = modulations(config)
    if modulation == "table":
        stored = {name: shape for name, shape in stored.items() if name not in tabled.tensors}
    table = None
    with PackWriter(path, force=force, shard_bytes=shard_bytes) as writer:
        for index, (name, (out_features, in_features)) in enumerate(block_linears(config).items()):
            if f"{name}.weight" not in stored:
                continue
            if name in unquantized:
                records[name] = LayerRecord(
                    weight_bits=16, in_features=in_features, out_features=out_features
                )
                bits[name] = LayerBits(weight_bits=16, activation_bits=(16,) * len(TIMESTEPS))
                continue
            width, rank, block = kinds[index % len(kinds)]
            layer = random_weight(
                name,
                out_features,
                in_features,
                bits=width,
                rank=rank,
                block=block,
                factor_bits=factor_bits,
                signs=signs,
                smoothing=index % len(kinds) == smoothed,
                seed=1000 * seed + index,
            )
            writer.add_layer(layer)
            records[name] = layer.record(error_db=20.5, global_energy=0.25, local_energy=0.125)
            bits[name] = LayerBits(weight_bits=width, activation_bits=(5, 4, 16))
            del stored[f"{name}.weight"], stored[f"{name}.bias"]
        for name, shape in stored.items():
            writer.add_tensor(name, 0.1 * torch.randn(shape, generator=generator))
        if prompts:
            shapes = {"embeds": (PROMPT_TOKENS, config.joint_attention_dim)}
            shapes["pooled"] = (config.pooled_projection_dim,)
            embeddings = {
                f"{prompt}.{part}": torch.randn(shape, generator=generator).bfloat16()
                for prompt in ("positive", "negative")
                for part, shape in shapes.items()
            }
            writer.add_prompts(embeddings)
            if modulation != "weights":
                table = ModulationRecord(
                    timesteps=sampling_timesteps(sampling),
                    prompts=tuple(pooled_prompts(embeddings)),
                    weights=modulation == "both",
                )
                for name, shape in tabled.layers.items():
                    rows = (len(table.prompts), len(table.timesteps), shape.out_features)
                    writer.add_modulation(name, 0.1 * torch.randn(rows, generator=generator).half())
        if companions:
            writer.add_file("scheduler/scheduler_config.json", b'{"shift": 3.0}\n')
            autoencoder = path.with_name(f"{path.name}.vae")
            write_autoencoder(autoencoder, latent_channels=config.in_channels, seed=seed)
            for file in sorted(autoencoder.iterdir()):
                writer.add_file(f"vae/{file.name}", file)
            shutil.rmtree(autoencoder)
        target = MeanBitWidths(weight_bits=4, activation_bits=4.5)
        quantizer = QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian")
        version = oldest_version(quantizer, records, table, sampling)
        manifest = Manifest(
            format_version=version,
            min_reader_version=version,
            modulation=table,
            producer=Producer(name="tests", version="0"),
            source=Source(files=(SourceFile(name="a.safetensors", sha256="0" * 64, bytes=8),)),
            model=Architecture(FAMILY, config, variant).record(),
            rotation=RotationRecord(
                enabled=True, signs=signs, seed=SIGN_SEED, sizes=writer.rotation_sizes
            ),
            quantizer=quantizer,
            sampling=sampling,
            recipe=RecipeRecord(
                name="q-dit4sr", settings={"global_rank": 2, "layers": ["a", 1, None]}
            ),
            target=target,
            reached=MeanBitWidths(weight_bits=3.9, activation_bits=4.5),
            transformer_bytes=TransformerBytes(source=1000),
            layers=records,
            omitted=tuple(sorted(omitted)),
            rebuilt=(POSITION_TABLE,),
        )
        manifest = manifest.model_copy(update=dict(changes or {}))
        grid = BitGrid(target=target, timesteps=TIMESTEPS, layers=bits)
        return writer.finish(manifest, grid, lambda m: f"# A pack of {m.model.family}\n")
