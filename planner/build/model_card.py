"""The pack's README: what it is, where it comes from, how to run it."""

from artifacts.pack.contents import architecture_of
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Write the model card of a pack."""
    architecture = architecture_of(manifest)
    family, variant = architecture.family, architecture.variant
    title = family.title
    target, sizes = manifest.target, manifest.transformer_bytes
    quantized = [record for record in manifest.layers.values() if record.is_quantized]
    sources = "\n".join(
        f"- `{file.name}`, {file.bytes:,} bytes, sha256 `{file.sha256}`"
        for file in manifest.source.files
    )
    front = _front_matter(manifest)
    return f"""{front}# {title} {variant}, W{target.weight_bits}A{target.activation_bits}

A quantized {title} transformer for enlarging photos four times, in the `qpack` format, version
{manifest.format_version}.

- network: {family.describe(architecture.config)}, variant `{variant}`
- {len(quantized)} quantized layers; mean weight bits {manifest.reached.weight_bits:.4f}, mean
  activation bits {manifest.reached.activation_bits:.4f}{_softmax(manifest)}
- transformer: {sizes.pack:,} bytes; its source has {sizes.source:,}
- recipe `{manifest.recipe.name}` by {manifest.producer.name} {manifest.producer.version}

Run it:

    qrun upscale photo.png --pack THIS_DIRECTORY

`bit_grid.json` says how many bits every layer has, and `manifest.json` how the pack was made.

## Source

{sources}

The licence of the source weights applies to this pack: quantizing them does not change it. Check
it where you got them before you pass this on. ({family.licence_note})
"""


def _front_matter(manifest: Manifest) -> str:
    """What model hubs read: YAML, whose values here need no quoting.

    The base model is named where the pack is of the published network's size; of any other, only
    its maker knows it.
    """
    architecture = architecture_of(manifest)
    family = architecture.family
    lines = ["license: other", "license_name: that-of-the-source-weights"]
    if family.hub_name and architecture.config in family.presets.values():
        lines += [f"base_model: {family.hub_name}", "base_model_relation: quantized"]
    lines += ["library_name: qdit4sr", "pipeline_tag: image-to-image", "tags:"]
    lines += [f"- {tag}" for tag in (family.name, "super-resolution", "quantized", "qpack")]
    return "\n".join(["---", *lines, "---", "", ""])


def _softmax(manifest: Manifest) -> str:
    bits = manifest.quantizer.softmax_bits
    return "" if bits == UNQUANTIZED else f"; attention probabilities at {bits} bits"
