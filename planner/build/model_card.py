"""The pack's README: what it is, where it comes from, how to run it."""

from schemas.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Write the model card of a pack."""
    config, variant = manifest.model.config, manifest.model.variant
    target, sizes = manifest.target, manifest.transformer_bytes
    quantized = [record for record in manifest.layers.values() if record.is_quantized]
    sources = "\n".join(
        f"- `{file.name}`, {file.bytes:,} bytes, sha256 `{file.sha256}`"
        for file in manifest.source.files
    )
    return f"""# DiT4SR {variant}, W{target.weight_bits}A{target.activation_bits}

A quantized DiT4SR transformer for enlarging photos four times, in the `qpack` format, version
{manifest.format_version}.

- network: {config.num_layers} blocks of width {config.hidden_size}, variant `{variant}`
- {len(quantized)} quantized layers; mean weight bits {manifest.reached.weight_bits:.4f}, mean
  activation bits {manifest.reached.activation_bits:.4f}
- transformer: {sizes.pack:,} bytes; its source has {sizes.source:,}
- recipe `{manifest.recipe.name}` by {manifest.producer.name} {manifest.producer.version}

Run it:

    qrun upscale photo.png --pack THIS_DIRECTORY

`bit_grid.json` says how many bits every layer has, and `manifest.json` how the pack was made.

## Source

{sources}

The licence of the source weights applies to this pack: quantizing them does not change it. Check
it where you got them before you pass this on. (DiT4SR's published weights and the Stable Diffusion
3.5 base each have a licence of their own.)
"""
