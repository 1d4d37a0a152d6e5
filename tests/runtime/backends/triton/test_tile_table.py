"""The table of tile sizes that ships with the project, and a user's own rows over it."""

import json
from pathlib import Path

import pytest

from runtime.backends.triton import tile_table, tile_table_file
from runtime.backends.triton.tile_table import (
    M_BUCKETS,
    config_for,
    m_bucket,
    read_table,
    row_for,
    row_name,
)
from runtime.backends.triton.tile_table_file import (
    SHIPPED,
    Origin,
    Table,
    capability_of,
    read_file,
    user_file,
    write_rows,
)

NAMES = {
    "prepare": {"elements", "num_warps", "num_stages", "programs", "maxnreg"},
    "thin": {"BM", "BK", "num_warps", "num_stages"},
    "product8": {"BN", "BM", "BK", "GROUP", "num_warps", "num_stages"},
    "product_packed": {"BN", "BM", "BK", "GROUP", "num_warps", "num_stages"},
}
ANY = {"num_stages", "programs", "maxnreg"}
"""What need not be a power of two."""
SHARED_BYTES = {80: 164 << 10, 86: 100 << 10, 89: 100 << 10, 90: 228 << 10, 120: 100 << 10}


ROW = {"BM": 32, "BK": 64, "num_warps": 4, "num_stages": 3}
PREPARE = {"elements": 4096, "num_warps": 4, "num_stages": 1, "programs": 3, "maxnreg": 168}
HERE = Origin("Some GPU", "3.6.0")


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The file of a user's own rows, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tile_table, "triton_version", lambda: HERE.triton)
    tile_table.forget()
    yield tmp_path / "cache" / "qdit4sr" / "triton-table-2.json"
    tile_table.forget()


def test_every_row_is_complete():
    for name, row in read_file(SHIPPED).rows.items():
        capability, kernel, m, *_ = name.split("/")
        assert set(row) == NAMES[kernel]
        assert int(m) in M_BUCKETS
        assert int(capability) in {0, *SHARED_BYTES}
        assert all(value & value - 1 == 0 for key, value in row.items() if key not in ANY)


@pytest.mark.parametrize("kernel", NAMES)
@pytest.mark.parametrize("capability", SHARED_BYTES)
def test_tiles_fit_the_shared_memory(capability, kernel):
    measured = read_file(SHIPPED).measured
    for m in (1, 2, 77, 333, 2381, 4096, 100000):
        for n, k in ((1536, 1536), (6144, 1536), (1536, 6144), (13824, 1536)):
            row = config_for(capability, kernel, m, n, k)
            name = row_for(capability, kernel, m_bucket(m), n, k)
            ran = capability_of(name) in measured and not name.endswith("/*/*")
            if kernel.startswith("product"):
                # Packed bytes serve two tiles of tokens; where it was measured, one was enough.
                tokens = 2 if kernel == "product_packed" and not ran else 1
                tiles = row["BN"] + row["BM"] * tokens
                assert tiles * row["BK"] * row["num_stages"] < SHARED_BYTES[capability]


def test_the_most_exact_row_wins(monkeypatch):
    rows = {
        row_name(80, "thin", 64, None, None): {"BM": 1},
        row_name(80, "thin", 64, 8, None): {"BM": 2},
        row_name(80, "thin", 64, 8, 4): {"BM": 3},
        row_name(90, "thin", 4096, None, None): {"BM": 4},
    }
    monkeypatch.setattr(tile_table, "user_file", lambda: None)
    monkeypatch.setattr(tile_table, "read_file", lambda file: Table(rows))
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


def test_a_users_rows_lie_over_those_that_ship(own, caplog):
    shipped = dict(read_table())
    row = {**ROW, "BM": 64}
    write_rows(own, {"90/thin/4096/*/*": row, "90/thin/64/*/1536": row}, 90, HERE)
    write_rows(own, {"120/thin/64/*/1536": ROW}, 120, Origin("Another GPU", "3.6.0"))
    tile_table.forget()
    assert read_table() == {
        **shipped,
        "90/thin/4096/*/*": row,
        "90/thin/64/*/1536": row,
        "120/thin/64/*/1536": ROW,
    }
    assert config_for(90, "thin", 64, 32, 1536) == row
    assert config_for(90, "thin", 64, 32, 6144) == shipped["90/thin/64/*/*"]
    assert not caplog.records


def test_rows_of_another_triton_are_left_out(own, caplog):
    write_rows(own, {"90/thin/64/*/1536": ROW}, 90, Origin("Some GPU", "3.5.0"))
    write_rows(own, {"80/thin/64/*/1536": ROW}, 80, HERE)
    tile_table.forget()
    assert set(read_table()) - set(read_file(SHIPPED).rows) == {"80/thin/64/*/1536"}
    assert [record.getMessage() for record in caplog.records] == [
        f"1 of 2 rows of {own} were not measured with Triton 3.6.0 and are left out;"
        " `qrun tune` measures anew"
    ]


GOOD = {"measured": {"90": {"device": "a", "triton": "b"}}, "rows": {"90/thin/64/*/*": ROW}}


def with_row(**changes):
    return {"measured": {}, "rows": {"90/thin/64/*/*": {**ROW, **changes}}}


BAD = {
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "long": b" " * 2_000_000 + json.dumps(GOOD).encode(),
    "list": [],
    "rows alone": {"rows": {}},
    "more": {**GOOD, "more": 1},
    "rows a list": {**GOOD, "rows": []},
    "capability": {**GOOD, "measured": {"9.0": {"device": "a", "triton": "b"}}},
    "origin": {**GOOD, "measured": {"90": {"device": "a"}}},
    "version": {**GOOD, "measured": {"90": {"device": "a", "triton": 3}}},
    "kernel": {**GOOD, "rows": {"90/fat/64/*/*": ROW}},
    "name": {**GOOD, "rows": {"90/thin/64/*": ROW}},
    "row": {**GOOD, "rows": {"90/thin/64/*/*": 3}},
    "setting missing": {**GOOD, "rows": {"90/thin/64/*/*": {"BM": 32}}},
    "setting unknown": with_row(BN=32),
    "text": with_row(BM="32"),
    "bool": with_row(num_stages=True),
    "fraction": with_row(BK=64.0),
    "small": with_row(BM=8),
    "large": with_row(BM=2048),
    "no power": with_row(BM=48),
    "warps": with_row(num_warps=64),
    "registers": {**GOOD, "rows": {"90/prepare/64/*/*": {**PREPARE, "maxnreg": 256}}},
    "more registers than there are": {
        **GOOD,
        "rows": {"90/prepare/64/*/*": {**PREPARE, "num_warps": 16, "maxnreg": 160}},
    },
    "programs": {**GOOD, "rows": {"90/prepare/64/*/*": {**PREPARE, "programs": 0}}},
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_damaged_table_is_told_once_and_passed_over(own, caplog, content):
    own.parent.mkdir(parents=True)
    own.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ValueError, match="is no table of tile sizes: "):
        read_file(own)
    for _ in range(2):
        assert read_table() == read_file(SHIPPED).rows
        config_for(90, "thin", 64, 32, 6144)
    (record,) = caplog.records
    assert f"tile sizes as shipped: {own} is no table" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_table_that_cannot_be_read_is_passed_over(own, caplog):
    own.mkdir(parents=True)
    assert read_table() == read_file(SHIPPED).rows
    assert "tile sizes as shipped" in caplog.text


def test_writing_keeps_what_is_not_replaced(own):
    write_rows(own, {"90/thin/64/*/1536": ROW, "90/thin/16/*/*": ROW}, 90, HERE)
    write_rows(own, {"80/thin/64/*/1536": ROW}, 80, HERE)
    write_rows(own, {"90/thin/256/*/1536": ROW}, 90, HERE)
    assert set(read_file(own).rows) == {
        "90/thin/64/*/1536",
        "90/thin/16/*/*",
        "80/thin/64/*/1536",
        "90/thin/256/*/1536",
    }
    # What another device measured would stand under this one's name.
    other = Origin("Another GPU", "3.6.0")
    write_rows(own, {"90/thin/1024/*/1536": ROW}, 90, other)
    assert read_file(own) == Table(
        dict.fromkeys(["90/thin/16/*/*", "80/thin/64/*/1536", "90/thin/1024/*/1536"], ROW),
        {90: other, 80: HERE},
    )
    assert [path.name for path in own.parent.iterdir()] == [own.name]


def test_writing_into_the_table_that_ships_keeps_its_form(tmp_path):
    copy = tmp_path / "table.json"
    copy.write_bytes(SHIPPED.read_bytes())
    name, shipped = "90/product8/4096/6144/1536", read_file(SHIPPED)
    write_rows(copy, {name: shipped.rows[name]}, 90, shipped.measured[90])
    assert copy.read_bytes() == SHIPPED.read_bytes()


def test_a_damaged_table_is_not_written_over(own):
    own.parent.mkdir(parents=True)
    own.write_text("{")
    with pytest.raises(ValueError, match="is no table"):
        write_rows(own, {"90/thin/64/*/1536": ROW}, 90, HERE)
    assert own.read_text() == "{"


def test_where_the_users_table_lies(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert user_file() == Path("/some/cache/qdit4sr/triton-table-2.json")
    monkeypatch.setenv("HOME", "/home/somebody")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert user_file() == Path("/home/somebody/.cache/qdit4sr/triton-table-2.json")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tile_table_file.Path, "home", homeless)
    assert user_file() is None
    assert read_table() == read_file(SHIPPED).rows


def test_buckets():
    assert [m_bucket(m) for m in (1, 16, 17, 2381, 4096, 9999)] == [16, 16, 64, 4096, 4096, 4096]
