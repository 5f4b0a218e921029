import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store

pytestmark = pytest.mark.endurance

VALUES = np.random.default_rng(0).standard_normal((10, 1, 2, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_store(tmp_path / "s.zarr", list("abcdefghij"), VALUES, np.full(10, OK, np.uint8), {"dim": 8})
    return tmp_path / "s.zarr"


def declare(path: Path, array: str, axis: int, length: Any) -> None:
    """Change the shape in an array's metadata."""
    file = path / array / "zarr.json"
    content = json.loads(file.read_text())
    content["shape"][axis] = length
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("length", [10**7, 10**12, 10**15])
def test_a_store_that_declares_huge_rows_is_corrupt(path: Path, axis: int, length: int) -> None:
    declare(path, "embeddings", axis, length)
    with pytest.raises(StoreError, match="corrupt embedding store") as said:
        EmbeddingStore.open(path).read()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("count", [10**7, 10**12])
def test_a_store_that_declares_too_many_utterances_is_corrupt(path: Path, count: int) -> None:
    declare(path, "embeddings", 0, count)
    with pytest.raises(StoreError, match="its arrays have different lengths"):
        EmbeddingStore.open(path)
    for name in ("utterances", "status"):
        declare(path, name, 0, count)
    with pytest.raises(StoreError, match=f"it declares {count:,} utterances, but its ids take few bytes"):
        EmbeddingStore.open(path)


@pytest.mark.parametrize("value", [-1, None, "many", 1e300, 2.5])
def test_lengths_that_are_none_are_corrupt(path: Path, value: Any) -> None:
    declare(path, "embeddings", 3, value)
    with pytest.raises(StoreError, match="corrupt embedding store"):
        EmbeddingStore.open(path).read()


@pytest.mark.parametrize("name", ["embeddings/c/0/0/0/0", "utterances/c/0", "status/zarr.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_in_place_of_a_file_is_refused(path: Path, name: str, kind: str) -> None:
    (path / name).unlink()
    if kind == "pipe":
        os.mkfifo(path / name)
    else:
        (path / name).symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="is no regular file"):
        EmbeddingStore.open(path).read()
