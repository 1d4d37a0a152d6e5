"""What a pack's JSON files promise about its tensors, and whether they agree with one another.

Everything here is decided from the manifest and the grid alone, before a tensor file is opened.
"""

from artifacts.codec.hadamard import Rotation
from artifacts.codec.layer_parts import expected_tensors
from artifacts.family import Architecture, family_names, find_family
from artifacts.files.safetensors_io import TensorSpec
from artifacts.pack.difference import check_difference
from artifacts.pack.file_names import MANIFEST
from artifacts.pack.modulation import tabled_tensors
from schemas.bit_grid import BitGrid
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import PackError
from schemas.json_io import validate
from schemas.manifest import Manifest


def signs_name(size: int | str) -> str:
    """Name of the tensor with the rotation signs of inputs of one size."""
    return f"rotation.signs.{size}"


def architecture_of(manifest: Manifest) -> Architecture:
    """The network that a manifest describes.

    Raises:
        PackError: its family is unknown, or the family knows no such variant or configuration.
    """
    model = manifest.model
    family = find_family(model.family)
    if family is None:
        raise PackError(
            f"{MANIFEST}: model.family {model.family!r} is not known",
            hint="upgrade this program; it knows " + ", ".join(family_names()),
        )
    if model.variant not in family.variants:
        raise PackError(
            f"{MANIFEST}: model.variant {model.variant!r} is not one of"
            f" {', '.join(family.variants)}"
        )
    where = f"{MANIFEST}: model.config"
    config = validate(family.config_type, model.config, where=where, error=PackError)
    architecture = Architecture(family, config, model.variant)
    # Whatever is left out there would be a default of this program's, not of the pack's.
    if architecture.record() != model:
        raise PackError(f"{where}: does not say every value of the configuration")
    return architecture


def check_agreement(manifest: Manifest, architecture: Architecture, grid: BitGrid) -> None:
    """Check that grid, layer records, sampling defaults and network fit together.

    Raises:
        PackError: the message names both sides.
    """
    wrong = architecture.wrong_sampling(manifest.sampling)
    if wrong is not None:
        raise PackError(f"{MANIFEST}: sampling.{wrong}")
    check_difference(
        grid.layers, manifest.layers, "bit_grid.json", "manifest.json", "quantized layers"
    )
    linears = architecture.quantizable
    absent = {*manifest.omitted, *tabled_tensors(manifest, architecture)}
    read = {name for name in linears if f"{name}.weight" not in absent}
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
    table = manifest.modulation
    if table is not None and not table.weights and len(table.timesteps) != manifest.sampling.steps:
        raise PackError(
            f"{MANIFEST}: modulation has {len(table.timesteps)} timesteps and no weights, sampling"
            f" {manifest.sampling.steps} steps"
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


def pack_tensors(manifest: Manifest, architecture: Architecture) -> dict[str, TensorSpec]:
    """Every tensor of the transformer's files: name -> dtype and shape.

    Raises:
        PackError: something is omitted that the network reads, or is both omitted and rebuilt.
    """
    shapes = dict(architecture.tensor_shapes)
    _check_omitted(manifest, architecture)
    for name in (*manifest.omitted, *manifest.rebuilt, *tabled_tensors(manifest, architecture)):
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


def _check_omitted(manifest: Manifest, architecture: Architecture) -> None:
    needed = sorted(set(manifest.omitted) - architecture.unread_tensors)
    if needed:
        raise PackError(
            f"manifest.json omits {needed[0][:200]}, which variant {architecture.variant} of the"
            " network reads"
        )
    stored = sorted(set(manifest.rebuilt) - set(architecture.family.rebuilt))
    if stored:
        raise PackError(f"manifest.json: rebuilt: {stored[0][:200]} cannot be rebuilt")
    for name in manifest.layers:
        if f"{name}.bias" in manifest.omitted:
            raise PackError(f"manifest.json omits {name}.bias, but has the layer")
