from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter, write_store

IDS = [f"u{n}" for n in range(6)]
VALUES = np.zeros((6, 2, 1, 4), dtype=np.float32)
STATUS = np.array([OK, OK, OK, FAILED, OK, OK], dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six rows in two shards, of which one failed."""
    path = tmp_path / "s.zarr"
    writer = StoreWriter(path, IDS, (2, 1, 4), {"dim": 4}, shard=4, of_audio=True)
    texts = np.array([[[f'{{"start":{row * 10 + draw}}}'] for draw in range(2)] for row in range(6)], dtype=object)
    texts[3] = ""
    for rows in writer.shards():
        part = slice(rows.start, rows.stop)
        writer.write(rows, VALUES[part], STATUS[part], texts[part], np.zeros((len(rows), 16), np.uint8))
    writer.finish()
    return path


def test_every_row_has_its_own_trace(store: Path) -> None:
    opened = EmbeddingStore.open(store)
    assert opened.trace(1) == [[{"start": 10}], [{"start": 11}]]
    assert opened.trace(5) == [[{"start": 50}], [{"start": 51}]]


def test_where_there_is_no_trace_the_error_says_so(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no trace of u3"):
        EmbeddingStore.open(store).trace(3)
    write_store(tmp_path / "enhanced.zarr", IDS, VALUES, STATUS, {"dim": 4})
    assert not (tmp_path / "enhanced.zarr" / "traces").exists()
    with pytest.raises(StoreError, match=r"no trace of u0.* enhanced"):
        EmbeddingStore.open(tmp_path / "enhanced.zarr").trace(0)


def test_a_damaged_trace_is_noticed(store: Path) -> None:
    chunk = next(path for path in sorted((store / "traces" / "c").rglob("*")) if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[-6] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="corrupt embedding store"):
        EmbeddingStore.open(store).trace(0)


def test_a_store_with_traces_is_replaced_by_a_newer_one(store: Path) -> None:
    write_store(store, IDS, VALUES, STATUS, {"dim": 4})
    assert not (store / "traces").exists()
