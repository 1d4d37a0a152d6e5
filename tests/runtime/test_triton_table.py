"""The table of tile sizes that ships with the project."""

import json

import pytest

from runtime.backends.triton import tuning
from runtime.backends.triton.tuning import M_BUCKETS, config_for, m_bucket, read_table, row_name

NAMES = {
    "prepare": {"elements", "num_warps", "num_stages"},
    "thin": {"BM", "BK", "num_warps", "num_stages"},
    "product8": {"BN", "BM", "BK", "GROUP", "num_warps", "num_stages"},
    "product_packed": {"BN", "BM", "BK", "GROUP", "num_warps", "num_stages"},
}
SHARED_BYTES = {80: 164 << 10, 86: 100 << 10, 89: 100 << 10, 90: 228 << 10, 120: 100 << 10}


def test_every_row_is_complete():
    for name, row in read_table().items():
        capability, kernel, m, *_ = name.split("/")
        assert set(row) == NAMES[kernel]
        assert int(m) in M_BUCKETS
        assert int(capability) in {0, *SHARED_BYTES}
        assert all(value & value - 1 == 0 for key, value in row.items() if key != "num_stages")


@pytest.mark.parametrize("kernel", NAMES)
@pytest.mark.parametrize("capability", SHARED_BYTES)
def test_tiles_fit_the_shared_memory(capability, kernel):
    for m in (1, 2, 77, 333, 2381, 4096, 100000):
        for n, k in ((1536, 1536), (6144, 1536), (1536, 6144), (13824, 1536)):
            row = config_for(capability, kernel, m, n, k)
            if kernel.startswith("product"):
                # Packed bytes serve two tiles of tokens.
                tiles = row["BN"] + row["BM"] * (2 if kernel == "product_packed" else 1)
                assert tiles * row["BK"] * row["num_stages"] < SHARED_BYTES[capability]


def test_the_most_exact_row_wins(tmp_path, monkeypatch):
    rows = {
        row_name(80, "thin", 64, None, None): {"BM": 1},
        row_name(80, "thin", 64, 8, None): {"BM": 2},
        row_name(80, "thin", 64, 8, 4): {"BM": 3},
        row_name(90, "thin", 4096, None, None): {"BM": 4},
    }
    file = tmp_path / "table.json"
    file.write_text(json.dumps(rows))
    monkeypatch.setattr(tuning, "read_table", lambda: read_table(file))
    config_for.cache_clear()
    try:
        found = [
            config_for(level, "thin", m, n, k)["BM"]
            for level, m, n, k in (
                (80, 64, 8, 4),
                (86, 17, 8, 5),
                (89, 5000, 9, 9),
                (90, 64, 8, 4),
                (100, 1, 1, 1),
            )
        ]
        assert found == [3, 2, 1, 4, 4]
        with pytest.raises(ValueError, match="no row for kernel thin on capability 75"):
            config_for(75, "thin", 1, 1, 1)
    finally:
        config_for.cache_clear()


def test_buckets():
    assert [m_bucket(m) for m in (1, 16, 17, 2381, 4096, 9999)] == [16, 16, 64, 4096, 4096, 4096]
