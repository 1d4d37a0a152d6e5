"""Packs to damage."""

import shutil

import pytest

from tests.artifacts.make_pack import make_pack


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "a.qpack"
    make_pack(path)
    return path


@pytest.fixture
def pack(pristine, tmp_path):
    """A copy to damage."""
    return shutil.copytree(pristine, tmp_path / "a.qpack")


@pytest.fixture
def shards(tmp_path):
    path = tmp_path / "shards.qpack"
    make_pack(path, shard_bytes=60_000)
    return path
