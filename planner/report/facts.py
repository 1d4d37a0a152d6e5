"""Everything a report shows of one pack, as plain JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.pack.reader import Pack
from planner.inspect.inspection import summary
from planner.inspect.layer_bytes import layer_bytes, other_bytes, stored_tensors
from planner.inspect.places import place_of
from planner.report.accounts import pack_accounts
from schemas.bit_grid import BitGrid
from schemas.calibration import Calibration
from schemas.errors import UsageError

DIGITS = 4
"""Significant digits of measured values: plots show no more, and pages stay small."""


def pack_facts(
    pack: Pack,
    label: str,
    *,
    variances: Mapping[str, Sequence[float]] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Describe a pack.

    Args:
        pack: opened.
        label: what to call it.
        variances: layer -> quantiles over channels, as `channel_variances` finds them; None leaves
            them out.
        calibration: of the checkpoint that the pack was made from; None leaves inputs out.
    """
    manifest = pack.manifest
    return {
        "label": label,
        "title": pack.architecture.family.title,
        "producer": f"{manifest.producer.name} {manifest.producer.version}",
        "checksum": manifest.checksum,
        "summary": summary(manifest),
        "settings": manifest.recipe.settings,
        "sampling": manifest.sampling.model_dump(mode="json"),
        "calibration": None
        if manifest.calibration is None
        else manifest.calibration.model_dump(mode="json"),
        "accounts": pack_accounts(pack).to_json(),
        "timesteps": list(pack.bit_grid.timesteps),
        "input_timesteps": None if calibration is None else list(calibration.timesteps),
        "other_bytes": other_bytes(pack),
        "layers": _layers(pack, variances or {}, calibration),
    }


def labels(packs: Sequence[Pack]) -> list[str]:
    """What to call each pack: its folder's name, or its path where two names are equal."""
    names = [pack.path.absolute().name for pack in packs]
    return names if len(set(names)) == len(names) else _told_apart(packs)


def _told_apart(packs: Sequence[Pack]) -> list[str]:
    paths = [str(pack.path) for pack in packs]
    if len(set(paths)) == len(paths):
        return paths
    return [f"{path} ({number})" for number, path in enumerate(paths, start=1)]


def check_same_source(calibration: Calibration, packs: Sequence[Pack]) -> list[bool]:
    """Which of ``packs`` the calibration is of: those made from the same checkpoint and variant.

    Raises:
        UsageError: of none.
    """
    known = {file.sha256 for file in calibration.source.files}
    found = [
        known == {file.sha256 for file in pack.manifest.source.files}
        and calibration.variant == pack.variant
        for pack in packs
    ]
    if not any(found):
        raise UsageError(
            "the calibration is of another checkpoint than the pack",
            hint="give the file that `qplan calibrate` made of the pack's source",
        )
    return found


def _layers(
    pack: Pack, variances: Mapping[str, Sequence[float]], calibration: Calibration | None
) -> list[dict[str, Any]]:
    """One entry per layer of the manifest, in network order; measured values where there are."""
    tensors = stored_tensors(pack)
    inputs = {} if calibration is None else calibration.mean_squares
    return [
        {
            "name": name,
            **place_of(name)._asdict(),
            **_record(pack, name, pack.bit_grid),
            "bytes": layer_bytes(name, tensors),
            "variances": _short(variances.get(name)),
            "inputs": _short(inputs.get(name)),
        }
        for name in pack.architecture.quantizable
        if name in pack.manifest.layers
    ]


def _record(pack: Pack, name: str, grid: BitGrid) -> dict[str, Any]:
    record = pack.manifest.layers[name]
    return {
        "out": record.out_features,
        "in": record.in_features,
        "weight_bits": record.weight_bits,
        "activation_bits": list(grid.layers[name].activation_bits),
        "global_rank": record.global_rank,
        "local_block": record.local_block,
        "factor_bits": record.factor_bits,
        "error_db": record.error_db,
        "error_share": None
        if record.error_share is None
        else record.error_share.weights + record.error_share.activations,
        "note": record.note,
    }


def _short(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(f"{value:.{DIGITS}g}") for value in values]
