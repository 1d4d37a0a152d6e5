"""Where a network family may be named: in its own rooms, and where people read or type it."""

import re
import tokenize
from pathlib import Path

import pytest

from artifacts.family import family_names

ROOT = Path(__file__).parents[2]
NAMELESS = (
    "artifacts/codec",
    "artifacts/files",
    "artifacts/pack",
    "artifacts/checkpoint",
    "planner/allocate",
    "planner/weights",
    "planner/estimate",
    "planner/inspect",
    "runtime/backends",
    "runtime/bench",
    "runtime/network",
    "schemas",
)
"""Rooms that serve any family: not even a comment names one."""
ONLY_IN_PROSE = (
    "planner/build",
    "planner/calibrate",
    "runtime/evaluation",
    "runtime/images",
    "runtime/sampling",
)
"""Rooms whose code names none; examples, hints and explanations may."""
_KNOWN = "|".join(rf"(?<!q-)(?<!q)\b{re.escape(name)}\b" for name in family_names())
INSTALLED = ("schemas", "artifacts", "runtime", "planner", "qdit4sr")
FAMILY = re.compile(
    _KNOWN
    + r"|(?<!q-)(?<!q)dit4sr|stable.?diffusion|\bsd3|pos_embed|transformer_blocks|joint_attention"
    r"|context_embedder|attn2|ControlBlock|TransformerConfig"
    r"|lightningdit|feat_rope|dinov2|scale_shift_table|mlp_ca|cross_attn|args\.json|VosrConfig",
    re.IGNORECASE,
)


def places(room, *, prose):
    """Lines of a room that name a family, as file:line."""
    found = []
    for file in sorted((ROOT / room).rglob("*.py")):
        with file.open("rb") as opened:
            for token in tokenize.tokenize(opened.readline):
                is_prose = token.type in (tokenize.COMMENT, tokenize.STRING)
                if (prose or not is_prose) and FAMILY.search(token.string):
                    found.append(f"{file.relative_to(ROOT)}:{token.start[0]}")
    return found


@pytest.mark.parametrize("room", NAMELESS)
def test_rooms_for_any_family_name_none(room):
    assert places(room, prose=True) == []


@pytest.mark.parametrize("room", ONLY_IN_PROSE)
def test_code_outside_the_families_rooms_names_none(room):
    assert places(room, prose=False) == []


def test_the_detector_finds_names_where_they_are():
    assert len(places("artifacts/dit4sr", prose=False)) > 10
    assert len(places("runtime/dit4sr", prose=False)) > 10
    assert len(places("artifacts/vosr", prose=False)) > 10
    assert len(places("runtime/vosr", prose=False)) > 10


def test_every_room_is_a_package():
    """A folder without ``__init__.py`` works from a checkout and is missing after an install."""
    rooms = {file.parent for top in INSTALLED for file in (ROOT / top).rglob("*.py")}
    assert [room for room in sorted(rooms) if not (room / "__init__.py").is_file()] == []
