"""Stores that are written in one go: every chunk is a file with a checksum."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter

ROWS, SHARD, DIM = 10, 4, 5
IDS = [f"id {row} ü" for row in range(ROWS)]
STATUS = np.array([OK] * SHARD + [FAILED] * SHARD + [OK] * (ROWS - 2 * SHARD), np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    values = np.arange(ROWS * DIM, dtype=np.float32).reshape(ROWS, 1, 1, DIM)
    values[STATUS == FAILED] = np.nan
    with closing(StoreWriter(tmp_path / "s.zarr", IDS, (1, 1, DIM), {"dim": DIM}, SHARD, whole=True)) as writer:
        for rows in writer.shards():
            writer.write(rows, values[rows.start : rows.stop], STATUS[rows.start : rows.stop])
        writer.finish()
    return tmp_path / "s.zarr"


def test_every_chunk_is_a_file_of_whole_rows_even_if_all_failed(store: Path) -> None:
    opened = EmbeddingStore.open(store)
    assert opened.utterances == tuple(IDS)
    np.testing.assert_array_equal(opened.status, STATUS)
    first, failed, last = (store / "embeddings" / "c" / str(chunk) / "0/0/0" for chunk in range(3))
    assert {path.stat().st_size for path in (first, failed, last)} == {4 * SHARD * DIM + 4}
    content = np.frombuffer(last.read_bytes()[:-4], "<f4").reshape(SHARD, DIM)
    np.testing.assert_array_equal(content[: ROWS - 2 * SHARD], opened.read()[2 * SHARD :, 0, 0])
    assert np.isnan(content[ROWS - 2 * SHARD :]).all()


@pytest.mark.parametrize("name", ["embeddings/c/0/0/0/0", "utterances/c/0", "status/c/0"])
def test_damage_is_noticed(store: Path, name: str) -> None:
    content = bytearray((store / name).read_bytes())
    content[2] ^= 1
    (store / name).write_bytes(content)
    with pytest.raises(StoreError, match=r"corrupt embedding store.*checksum"):
        EmbeddingStore.open(store).read()
