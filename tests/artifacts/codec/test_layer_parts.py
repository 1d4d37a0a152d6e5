"""The table of a layer's tensors: its rows agree with themselves, the record and the page."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from artifacts.codec.layer_parts import (
    LAYER_PARTS,
    LayerPart,
    allowed_values,
    expected_parts,
)
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.codec.values import wrong_value
from artifacts.files.safetensors_io import TORCH_DTYPES, TensorSpec
from schemas.manifest import LayerRecord
from tests.artifacts.make_pack import random_weight

PAGE = Path(__file__).parents[3] / "docs" / "pack-format.md"
BARE = LayerRecord(weight_bits=3, in_features=48, out_features=20)
FIELDS = {part.record_field for part in LAYER_PARTS.values()} - {None}
WHOLE = LayerRecord(
    **BARE.model_dump(exclude=FIELDS),
    **{"global_rank": 7, "local_block": (5, 12), "factor_bits": 8},
    **dict.fromkeys(FIELDS - {"global_rank", "local_block"}, True),
)
SYMBOLS = {"out": 20, "in": 48, "r": 7, "P": 4, "Q": 4, "s_o": 5, "s_i": 12, "bytes": 20 * (12 + 8)}


@pytest.mark.parametrize("part", LAYER_PARTS.values(), ids=lambda part: part.name)
def test_a_row_says_its_shape_twice_alike(part):
    symbols = part.dimensions.strip("[]").split(", ")
    assert part.shape(WHOLE) == tuple(SYMBOLS[symbol] for symbol in symbols)
    assert part.dtype in TORCH_DTYPES


@pytest.mark.parametrize("part", LAYER_PARTS.values(), ids=lambda part: part.name)
def test_a_row_names_a_field_of_the_record_and_of_the_layer(part):
    fields = {field.name: field for field in dataclasses.fields(QuantizedWeight)}
    has_default = fields[part.name].default is not dataclasses.MISSING
    assert has_default == (not part.is_required)
    if part.record_field is not None:
        assert part.record_field in LayerRecord.model_fields
        assert not part.optional


def test_every_tensor_of_the_record_in_memory_has_a_row():
    tensors = {
        field.name
        for field in dataclasses.fields(QuantizedWeight)
        if field.type in (torch.Tensor, torch.Tensor | None)
    }
    assert tensors - {"signs"} == set(LAYER_PARTS)


def test_the_record_says_what_is_there():
    assert list(expected_parts(WHOLE)) == list(LAYER_PARTS)
    assert list(expected_parts(WHOLE, has_bias=False)) == [n for n in LAYER_PARTS if n != "bias"]
    assert list(expected_parts(BARE)) == ["codes", "scale", "bias"]
    assert list(expected_parts(BARE, has_bias=False)) == ["codes", "scale"]
    for part in LAYER_PARTS.values():
        if part.record_field is not None:
            without = WHOLE.model_copy(update={part.record_field: getattr(BARE, part.record_field)})
            gone = set(expected_parts(WHOLE)) - set(expected_parts(without))
            assert gone == {
                p.name for p in LAYER_PARTS.values() if p.record_field == part.record_field
            }


def test_a_part_that_the_record_cannot_announce_is_refused():
    """Factors of rank 0 would be tensors that no reader expects."""
    layer = random_weight("l", 8, 24, rank=0)
    empty = {
        "global_up": torch.zeros(8, 0, dtype=torch.bfloat16),
        "global_down": torch.zeros(0, 24, dtype=torch.bfloat16),
    }
    with pytest.raises(ValueError, match=r"l\.global_up is BF16 \[8, 0\], but must be left out"):
        dataclasses.replace(layer, **empty)


def test_a_new_row_reaches_files_and_checks(monkeypatch):
    """What the table drives, it drives for rows that this code has never seen."""
    extra = LayerPart(
        "extra", "F32", "[out]", lambda record: (record.out_features,), "hypothetical"
    )
    monkeypatch.setitem(LAYER_PARTS, "extra", extra)
    assert expected_parts(BARE)["extra"] == TensorSpec("F32", (20,))
    assert allowed_values("l.extra", {"l": BARE}) == "finite"


@pytest.mark.parametrize(
    ("value", "allowed", "wrong"),
    [
        (0.0, "finite, not negative", None),
        (-1e-9, "finite, not negative", "a negative value"),
        (0.0, "finite, positive", "a value that is not positive"),
        (-1.0, "finite", None),
        (float("nan"), "finite, positive", "a value that is not finite"),
        (float("inf"), "finite, not negative", "a value that is not finite"),
        (float("-inf"), "finite", "a value that is not finite"),
        (float("nan"), "any", None),
    ],
)
def test_values(value, allowed, wrong):
    tensor = torch.ones(5)
    tensor[3] = value
    assert wrong_value(tensor, allowed) == wrong


def test_a_tensor_of_the_network_may_be_called_like_a_part():
    """Only parts of quantized layers are held to the table."""
    kept = LayerRecord(weight_bits=16, in_features=48, out_features=20)
    layers = {"a.b": BARE, "k": kept}
    assert allowed_values("a.b.scale", layers) == "finite, not negative"
    assert allowed_values("a.b.smoothing", layers) == "finite, positive"
    for plain in ("a.b.weight", "a.scale", "b.scale", "scale", "k.scale", "k.bias"):
        assert allowed_values(plain, layers) == "finite", plain


@pytest.mark.parametrize("factor_bits", [8, 16])
def test_parts_of_narrow_factors(factor_bits):
    record = WHOLE.model_copy(update={"factor_bits": factor_bits})
    parts = expected_parts(record)
    dtypes = {part: spec.dtype for part, spec in parts.items() if part.startswith(("gl", "lo"))}
    if factor_bits == 8:
        expected = {side: "F32" if side == "scale" else "I8" for side in ("up", "down", "scale")}
    else:
        expected = {"up": "BF16", "down": "BF16"}
    assert dtypes == {f"{k}_{side}": d for k in ("global", "local") for side, d in expected.items()}


def page_row(part):
    """A row of the page, from the table."""
    words = [part.dtype] + ([part.narrow_dtype] if part.narrow_dtype else [])
    dtype = " or ".join(str(TORCH_DTYPES[word]).removeprefix("torch.") for word in words)
    if part.record_field is not None:
        present = f"by the record's `{part.record_field}`"
        present += ", where `factor_bits` is 8" if part.narrow_only else ""
    else:
        present = "if the network's layer has one" if part.optional else "always"
    cells = (f"`L.{part.name}`", f"{dtype} {part.dimensions}", present, part.values, part.meaning)
    return f"| {' | '.join(cells)} |"


def test_the_pages_table_is_the_codes():
    rows = re.findall(r"^\| `L\..*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == [page_row(part) for part in LAYER_PARTS.values()]
