import json
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from artifacts.files.safetensors_io import (
    TORCH_DTYPES,
    Entry,
    TensorSpec,
    file_order,
    read_header,
    read_tensor,
    write_safetensors,
)
from schemas.errors import CheckpointError, PackError
from tests.artifacts.tamper import with_header

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4, dtype=torch.bfloat16),
    "half": torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "é": torch.tensor([-7], dtype=torch.int64),
    "flags": torch.tensor([True, False]),
}


def write(path, tensors=TENSORS):
    write_safetensors(path, {name: Entry.of(t) for name, t in tensors.items()}, {"format": "pt"})
    return path


def test_the_library_reads_what_is_written(tmp_path):
    loaded = load_file(write(tmp_path / "a.safetensors"))
    assert set(loaded) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_what_the_library_writes_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors", {"k": "v"})
    header = read_header(tmp_path / "a.safetensors")
    assert header.metadata == {"k": "v"}
    for name, tensor in TENSORS.items():
        read = header.read(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)


@pytest.mark.parametrize("word", TORCH_DTYPES)
def test_every_dtype_comes_back(tmp_path, word):
    tensor = torch.arange(24, dtype=torch.uint8).view(TORCH_DTYPES[word]).clone()
    if word == "BOOL":
        tensor = torch.tensor([True, False])
    header = read_header(write(tmp_path / "a", {"t": tensor}))
    again = header.read("t")
    assert again.dtype == tensor.dtype
    assert torch.equal(again.view(torch.uint8), tensor.view(torch.uint8))


def test_bytes_do_not_depend_on_the_order_of_entries(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", dict(reversed(TENSORS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_tensor_lies_aligned(tmp_path):
    header = read_header(write(tmp_path / "a"))
    for info in header.tensors.values():
        assert info.start % TORCH_DTYPES[info.dtype].itemsize == 0
    assert file_order({n: i.spec for n, i in header.tensors.items()})[0] == "scalar"


def test_a_tensor_that_produces_other_bytes_than_announced(tmp_path):
    entry = Entry(TensorSpec("U8", (3,)), lambda: [b"12"])
    with pytest.raises(ValueError, match="t: 3 bytes announced, 2 produced"):
        write_safetensors(tmp_path / "a", {"t": entry})


def test_a_read_tensor_is_a_copy(tmp_path):
    header = read_header(write(tmp_path / "a"))
    tensor = header.read("b.weight")
    with (tmp_path / "a").open("r+b") as file:
        file.truncate(0)
    assert torch.equal(tensor, TENSORS["b.weight"])


@pytest.mark.parametrize("change", ["replace", "truncate", "overwrite", "delete"])
def test_a_file_that_changes_after_its_header_was_read(tmp_path, change):
    path = write(tmp_path / "a")
    header = read_header(path)
    if change == "replace":
        write(tmp_path / "b", TENSORS)
        (tmp_path / "b").replace(path)
    elif change == "truncate":
        os.truncate(path, path.stat().st_size - 1)
    elif change == "overwrite":
        with path.open("r+b") as file:
            file.write(b"\0" * 100)
        # Clocks of file systems tick slowly; a later write shows a later time.
        os.utime(path, ns=(0, header.identity.modified_ns + 10_000_000))
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"a: (was replaced|cannot be read)"):
        header.read("b.weight", error=CheckpointError)


def test_a_short_read_without_identity_names_the_tensor(tmp_path):
    path = write(tmp_path / "a")
    info = read_header(path).tensors["b.weight"]
    os.truncate(path, info.end - 1)
    with pytest.raises(PackError, match=r"b\.weight: 24 bytes expected, but only 23 are left"):
        read_tensor(path, info, name="b.weight")


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


MALFORMED = {
    "gap": ({"a": entry(shape=[2], offsets=[0, 2]), "b": entry(shape=[1], offsets=[3, 4])}, "gap"),
    "late start": ({"a": entry(shape=[3], offsets=[1, 4])}, "gap"),
    "overlap": ({"a": entry(), "b": entry(shape=[2], offsets=[2, 4])}, "overlaps"),
    "same place": ({"a": entry(), "b": entry()}, "overlaps"),
    "trailing": ({"a": entry(shape=[3], offsets=[0, 3])}, "1 trailing bytes"),
    "truncated": ({"a": entry(shape=[5], offsets=[0, 5])}, "truncated: .* bytes expected"),
    "backwards": ({"a": entry(offsets=[4, 0])}, "its offsets span -4"),
    "huge shape": ({"a": entry(shape=[0, 2**40], offsets=[0, 4])}, "takes 0 bytes"),
    "wrapping shape": ({"a": entry(shape=[2**32, 2**32])}, "takes 18446744073709551616 bytes"),
    "wrapping offsets": ({"a": entry(offsets=[2**63 - 4, 2**63])}, "below 2\\^63"),
    "huge dimension": ({"a": entry(shape=[2**63])}, "below 2\\^63"),
    "negative": ({"a": entry(shape=[-4])}, "shape must be"),
    "many dimensions": ({"a": entry(shape=[1] * 8 + [4])}, "at most 8"),
    "bool dimension": ({"a": entry(shape=[True, 4])}, "shape must be"),
    "float dimension": ({"a": entry(shape=[4.0])}, "shape must be"),
    "text offset": ({"a": entry(offsets=["0", 4])}, "data_offsets must be"),
    "three offsets": ({"a": entry(offsets=[0, 2, 4])}, "data_offsets must be"),
    "dtype": ({"a": entry(dtype="F4")}, "unknown dtype 'F4'"),
    "dtype type": ({"a": entry(dtype=["U8"])}, "unknown dtype"),
    "missing key": ({"a": {"dtype": "U8", "shape": [4]}}, "needs exactly"),
    "extra key": ({"a": entry() | {"x": 1}}, "needs exactly"),
    "not an entry": ({"a": 4}, "needs exactly"),
    "metadata": ({"__metadata__": {"a": 1}, "a": entry()}, "__metadata__"),
    "metadata type": ({"__metadata__": [], "a": entry()}, "__metadata__"),
    "duplicate": ('{"a": %s, "a": %s}' % ((json.dumps(entry()),) * 2), "appears twice"),
    "nan": ('{"a": {"dtype": "U8", "shape": [NaN], "data_offsets": [0, 4]}}', "NaN"),
    "not JSON": ("{oops}", "not valid JSON"),
    "deep": ('{"a": ' * 5000 + "1" + "}" * 5000, "nest deeper"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_headers(tmp_path, case):
    header, message = MALFORMED[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(with_header(header, b"\1\2\3\4"))
    with pytest.raises(PackError, match=message) as caught:
        read_header(path)
    assert "bad.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes, too short"),
        (b"\1\0\0\0\0\0\0\0", "8 bytes, too short"),
        (b"\x10\0\0\0\0\0\0\0{}", "truncated: 24 bytes expected for the header alone.* has 10"),
        ((2**63).to_bytes(8, "little") + b"{}", f"header length {2**63}, more than the limit"),
        (b"\xff" * 8 + b"{}", "more than the limit"),
        (b"\2\0\0\0\0\0\0\0[]", "does not start with"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git-LFS pointer"),
        (b"\n <!DOCTYPE html><html></html>", "web page"),
        (b"<html><body>404</body></html>", "web page"),
        (pickle.dumps({"a": [1, 2]}, protocol=2), "pickle"),
        (pickle.dumps({"a": [1, 2]}, protocol=5), "pickle"),
        (b"GGUF\3\0\0\0", "GGUF"),
    ],
)
def test_other_content_is_recognised(tmp_path, data, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_header(path, error=CheckpointError)


def test_a_torch_archive_is_refused_with_the_way_to_convert_it(tmp_path):
    path = tmp_path / "a.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="pickle") as caught:
        read_header(path, error=CheckpointError)
    assert "save_file" in caught.value.hint


@pytest.mark.parametrize("low", [b"\x80\x02", b"\x80\x04", b"PK\x03\x04"])
def test_a_header_length_that_looks_like_a_pickle_is_one_when_it_fits(tmp_path, low):
    length = int.from_bytes(low[:2], "little")
    path = tmp_path / "a.safetensors"
    text = json.dumps({"a": entry()}).ljust(length)
    path.write_bytes(with_header(text, b"1234"))
    assert read_header(path).read("a").tolist() == [49, 50, 51, 52]


def test_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for name in (".", "pipe"):
        with pytest.raises(PackError, match="not a regular file"):
            read_header(tmp_path / name)
    with pytest.raises(PackError, match="No such file"):
        read_header(tmp_path / "gone")


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_mutated_files_give_the_typed_error_or_equal_tensors(tmp_path_factory, data):
    base = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    original = write(base).read_bytes()
    mutated = bytearray(original)
    place = data.draw(st.integers(0, len(original) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "repeat", "insert", "digit"]))
    if kind == "flip":
        mutated[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del mutated[place : place + data.draw(st.integers(1, 40))]
    elif kind == "repeat":
        mutated[place:place] = mutated[place : place + data.draw(st.integers(1, 40))]
    elif kind == "insert":
        mutated[place:place] = data.draw(st.binary(max_size=9))
    else:
        mutated[place : place + 1] = data.draw(
            st.sampled_from([b"9", b"-", b".", b'"', b"e", b"]"])
        )
    base.write_bytes(mutated)
    try:
        header = read_header(base)
    except PackError:
        return
    # The file itself has no hash: what remains must be consistent, and no larger than the file.
    assert sum(header.read(name).nbytes for name in header.tensors) < len(mutated)
