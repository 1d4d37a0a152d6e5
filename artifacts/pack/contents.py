"""What a pack's JSON files promise about its tensors, and whether they agree with one another.

Everything here is decided from the manifest and the grid alone, before a tensor file is opened.
"""

from collections.abc import Iterable

from artifacts.codec.hadamard import Rotation
from artifacts.codec.layer_parts import expected_tensors
from artifacts.dit4sr.layout import block_linears, tensor_shapes, unread_tensors
from artifacts.files.safetensors_io import TensorSpec
from schemas.bit_grid import UNQUANTIZED, BitGrid
from schemas.errors import PackError
from schemas.manifest import Manifest
from schemas.transformer_config import TransformerConfig

_NAMES_SHOWN = 5


def signs_name(size: int | str) -> str:
    """Name of the tensor with the rotation signs of inputs of one size."""
    return f"rotation.signs.{size}"


def check_agreement(manifest: Manifest, grid: BitGrid) -> None:
    """Check that grid, layer records and network speak of the same layers and bits.

    Raises:
        PackError: the message names both sides.
    """
    check_difference(
        grid.layers, manifest.layers, "bit_grid.json", "manifest.json", "quantized layers"
    )
    linears = block_linears(manifest.model.config)
    omitted = set(manifest.omitted)
    read = {name for name in linears if f"{name}.weight" not in omitted}
    check_difference(manifest.layers, read, "manifest.json", "the network", "layers")
    for name, record in manifest.layers.items():
        bits = grid.layers[name]
        if bits.weight_bits != record.weight_bits:
            raise PackError(
                f"layer {name}: bit_grid.json has {bits.weight_bits} weight bits, manifest.json"
                f" has {record.weight_bits}"
            )
        if not record.is_quantized and set(bits.activation_bits) != {UNQUANTIZED}:
            # It is stored, and runs, as an ordinary layer: other bits would be ignored silently.
            raise PackError(
                f"layer {name}: bit_grid.json quantizes the activations of a layer whose weight"
                " manifest.json keeps in 16 bits"
            )
        if (record.out_features, record.in_features) != linears[name]:
            raise PackError(
                f"layer {name}: manifest.json has a {record.out_features} x {record.in_features}"
                f" weight, the network {linears[name].out_features} x {linears[name].in_features}"
            )
    if grid.target != manifest.target:
        raise PackError(
            f"target: bit_grid.json has {grid.target.weight_bits}/{grid.target.activation_bits}"
            f" bits, manifest.json {manifest.target.weight_bits}/{manifest.target.activation_bits}"
        )


def pack_rotations(manifest: Manifest) -> dict[str, Rotation]:
    """Size as text -> rotation, of every size that the manifest records.

    Raises:
        PackError: there is no such rotation.
    """
    rotations = {}
    for key, record in manifest.rotation.sizes.items():
        try:
            rotation = Rotation(int(key), record.construction, record.block_size)
        except ValueError as cause:
            raise PackError(f"manifest.json: rotation.sizes.{key}: {cause}") from None
        if rotation.is_identity:
            raise PackError(
                f"manifest.json: rotation.sizes.{key}: layers without a rotation say `none`"
            )
        rotations[key] = rotation
    return rotations


def pack_tensors(manifest: Manifest) -> dict[str, TensorSpec]:
    """Every tensor of the transformer's files: name -> dtype and shape.

    Raises:
        PackError: something is omitted that the network reads, or is both omitted and rebuilt.
    """
    model = manifest.model
    shapes = tensor_shapes(model.config)
    _check_omitted(manifest)
    for name in (*manifest.omitted, *manifest.rebuilt):
        del shapes[name]
    quantized = {name: r for name, r in manifest.layers.items() if r.is_quantized}
    specs: dict[str, TensorSpec] = {}
    for name, record in quantized.items():
        del shapes[f"{name}.weight"]
        has_bias = shapes.pop(f"{name}.bias", None) is not None
        specs.update(expected_tensors(name, record, has_bias=has_bias))
    specs.update((name, TensorSpec("BF16", shape)) for name, shape in shapes.items())
    if manifest.rotation.signs:
        for key in manifest.rotation.sizes:
            specs[signs_name(key)] = TensorSpec("U8", (-(-int(key) // 8),))
    return specs


def prompt_tensors(config: TransformerConfig, prompt_tokens: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in ``prompts.safetensors``: each prompt per token, and pooled."""
    shapes: dict[str, tuple[int, ...]] = {}
    for prompt in ("positive", "negative"):
        shapes[f"{prompt}.embeds"] = (prompt_tokens, config.joint_attention_dim)
        shapes[f"{prompt}.pooled"] = (config.pooled_projection_dim,)
    return shapes


def check_difference(
    left: Iterable[str], right: Iterable[str], left_side: str, right_side: str, what: str
) -> None:
    """Check that two sets of names are equal.

    Raises:
        PackError: the message names both sides and the first names that only one of them has.
    """
    left_names, right_names = set(left), set(right)
    problems = [
        f"{side} alone has {len(names)}: {', '.join(name[:200] for name in names[:_NAMES_SHOWN])}"
        for side, names in (
            (left_side, sorted(left_names - right_names)),
            (right_side, sorted(right_names - left_names)),
        )
        if names
    ]
    if problems:
        raise PackError(f"{what} of {left_side} and {right_side} differ: {'; '.join(problems)}")


def _check_omitted(manifest: Manifest) -> None:
    unread = unread_tensors(manifest.model.config, manifest.model.variant)
    needed = sorted(set(manifest.omitted) - unread)
    if needed:
        raise PackError(
            f"manifest.json omits {needed[0][:200]}, which variant {manifest.model.variant} of the"
            " network reads"
        )
    for name in manifest.layers:
        if f"{name}.bias" in manifest.omitted:
            raise PackError(f"manifest.json omits {name}.bias, but has the layer")
