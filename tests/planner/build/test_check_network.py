"""``qplan verify``'s last question: does the pack hold all that its network reads?"""

import pytest

from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
from artifacts.pack.reader import open_pack
from planner.build.network_probe import check_network, find_active_tensors
from schemas.errors import PackError
from tests.artifacts.make_pack import TINY, make_pack


@pytest.mark.parametrize("variant", ["q", "f", "r1"])
def test_a_pack_that_leaves_out_only_what_nothing_reads(tmp_path, variant):
    make_pack(tmp_path / "m.qpack", variant=variant)
    manifest = open_pack(tmp_path / "m.qpack").manifest
    assert manifest.omitted
    check_network(manifest)


def test_any_active_tensor_is_missed(tmp_path):
    manifest = make_pack(tmp_path / "m.qpack")
    for name in sorted(find_active_tensors(Architecture(FAMILY, TINY, "q"))):
        omitted = tuple(sorted({*manifest.omitted, name}))
        with pytest.raises(PackError, match=name):
            check_network(manifest.model_copy(update={"omitted": omitted}))


def test_the_variant_decides(tmp_path):
    # What q never reads, r1 does: its own control keys.
    manifest = make_pack(tmp_path / "m.qpack", variant="q")
    model = manifest.model.model_copy(update={"variant": "r1"})
    with pytest.raises(PackError, match="to_k_control"):
        check_network(manifest.model_copy(update={"model": model}))
