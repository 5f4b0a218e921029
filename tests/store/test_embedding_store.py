import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import OutputError, StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter, write_store
from tests.conftest import tree_bytes

IDS = [f"speaker {n // 3}/ü{n}.wav" for n in range(10)]
VALUES = np.random.default_rng(0).standard_normal((10, 2, 4, 8)).astype(np.float32)
STATUS = np.full(10, OK, dtype=np.uint8)


def made(path: Path) -> Path:
    write_store(path, IDS, VALUES, STATUS, {"dim": 8, "encoder": "x"})
    return path


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    store = EmbeddingStore.open(made(tmp_path / "s.zarr"))
    np.testing.assert_array_equal(store.read(), VALUES)
    assert store.utterances == tuple(IDS)
    assert store.dim == 8
    assert store.attributes["encoder"] == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]  # no journal is left


def test_two_writes_make_the_same_bytes_whatever_the_order_of_shards(tmp_path: Path) -> None:
    for name, turn in (("a", 1), ("b", -1)):
        writer = StoreWriter(tmp_path / f"{name}.zarr", IDS, (2, 4, 8), {"dim": 8}, shard=4)
        for rows in writer.shards()[::turn]:
            writer.write(rows, VALUES[rows.start : rows.stop], STATUS[rows.start : rows.stop])
        writer.finish()
    assert tree_bytes(tmp_path / "a.zarr") == tree_bytes(tmp_path / "b.zarr")


def test_an_unfinished_store_keeps_its_shards_and_is_not_in_its_place(tmp_path: Path) -> None:
    target = tmp_path / "s.zarr"
    first = StoreWriter(target, IDS, (2, 4, 8), {"dim": 8}, shard=4)
    first.write(range(4, 8), VALUES[4:8], STATUS[4:8])
    with pytest.raises(StoreError, match="rows are missing"):
        first.finish()
    assert not target.exists()
    with pytest.raises(OutputError, match="another process is writing there"):
        StoreWriter(target, IDS, (2, 4, 8), {"dim": 8}, shard=4)
    first.close()
    again = StoreWriter(target, IDS, (2, 4, 8), {"dim": 8}, shard=4)
    assert again.status().tolist() == [0] * 4 + [OK] * 4 + [0] * 2
    again.close()
    other = StoreWriter(target, IDS, (2, 4, 8), {"dim": 8, "seed": 1}, shard=4)
    assert not other.status().any()  # of another making, so nothing is shared


def test_a_finished_store_replaces_an_older_one(tmp_path: Path) -> None:
    made(tmp_path / "s.zarr")
    write_store(tmp_path / "s.zarr", IDS[:2], VALUES[:2], STATUS[:2], {"dim": 8})
    assert EmbeddingStore.open(tmp_path / "s.zarr").utterances == tuple(IDS[:2])


def test_failed_rows_are_nan_and_not_ok(tmp_path: Path) -> None:
    values, status = VALUES.copy(), STATUS.copy()
    values[3], status[3] = np.nan, FAILED
    write_store(tmp_path / "s.zarr", IDS, values, status, {"dim": 8})
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert 3 not in store.ok
    assert len(store.ok) == 9
    assert np.isnan(store.read()[3]).all()


def spoil(path: Path, what: str) -> None:
    if what == "no store":
        (path / "zarr.json").unlink()
    elif what == "metadata":
        (path / "embeddings" / "zarr.json").write_text("{")
    elif what == "array gone":
        (path / "status" / "zarr.json").unlink()
    elif what == "schema":
        text = (path / "zarr.json").read_text().replace('"schema": 2', '"schema": 99')
        (path / "zarr.json").write_text(text)
    elif what == "unfinished":
        (path / "status" / "c" / "0").unlink()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no store", "no embedding store there"),
        ("metadata", "corrupt embedding store"),
        ("array gone", "corrupt embedding store"),
        ("schema", "store schema 99, this version reads 1 and 2"),
        ("unfinished", "unfinished, 10 of 10 rows"),
    ],
)
def test_a_spoilt_store_is_one_clear_line(tmp_path: Path, what: str, says: str) -> None:
    path = made(tmp_path / "s.zarr")
    spoil(path, what)
    with pytest.raises(StoreError) as caught:
        EmbeddingStore.open(path)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_shard_is_never_read_as_embeddings(tmp_path: Path, damage: str) -> None:
    path = made(tmp_path / "s.zarr")
    shard = next(file for file in (path / "embeddings" / "c").rglob("*") if file.is_file())
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-50])
    else:
        shard.unlink()
    with pytest.raises(StoreError, match="Extract it again"):
        EmbeddingStore.open(path).read()


def test_what_is_no_store_is_never_replaced_by_one(tmp_path: Path) -> None:
    folder, file = tmp_path / "precious", tmp_path / "precious.wav"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    file.write_bytes(b"sound")
    values = np.zeros((1, 1, 1, 2), dtype=np.float32)
    foreign = tmp_path / "foreign.zarr"  # somebody's own Zarr, or a store of ours with a letter in it
    made(foreign)
    (foreign / "letter.txt").write_text("dear all")
    for place in (folder, file, foreign):
        with pytest.raises(OutputError, match="exists and is no embedding store"):
            write_store(place, ["a"], values, np.array([OK], dtype=np.uint8), {"dim": 2})
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert file.read_bytes() == b"sound"
    (tmp_path / "empty").mkdir()
    write_store(tmp_path / "empty", ["a"], values, np.array([OK], dtype=np.uint8), {"dim": 2})
    assert EmbeddingStore.open(tmp_path / "empty").utterances == ("a",)
    assert (foreign / "letter.txt").exists()


@pytest.mark.parametrize("array", ["embeddings", "status", "utterances"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, array: str) -> None:
    store = made(tmp_path / "s.zarr")
    chunk = next(path for path in sorted((store / array / "c").rglob("*")) if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="corrupt"):
        EmbeddingStore.open(store).read()


def test_missing_ids_are_noticed(tmp_path: Path) -> None:
    store = made(tmp_path / "s.zarr")
    shutil.rmtree(store / "utterances" / "c")
    with pytest.raises(StoreError, match="ids are damaged"):
        EmbeddingStore.open(store)


def test_remains_of_a_journal_do_not_stop_a_new_one(tmp_path: Path) -> None:
    target = tmp_path / "s.zarr"
    with closing(StoreWriter(target, IDS, (2, 4, 8), {"dim": 8}, shard=4)) as writer:
        (writer.folder / "store.zarr" / "zarr.json").unlink()
    with closing(StoreWriter(target, IDS, (2, 4, 8), {"dim": 8}, shard=4)) as writer:
        assert not writer.status().any()


def test_many_ids_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.layout._IDS", 3)
    assert EmbeddingStore.open(made(tmp_path / "s.zarr")).utterances == tuple(IDS)


def in_one_go(path: Path, ids: list[str], values: NDArray[np.float32], shards: int | None = None) -> None:
    with closing(StoreWriter(path, ids, (2, 4, 8), {"dim": 8}, shard=4, whole=True)) as writer:
        for rows in writer.shards()[:shards]:
            writer.write(rows, values[rows.start : rows.stop], STATUS[rows.start : rows.stop])
        if shards is None:
            writer.finish()


def test_a_store_written_in_one_go_holds_the_same(tmp_path: Path) -> None:
    in_one_go(tmp_path / "s.zarr", IDS, VALUES)
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.utterances == tuple(IDS)
    assert store.shards() == [range(0, 4), range(4, 8), range(8, 10)]
    np.testing.assert_array_equal(store.read(), VALUES)
    np.testing.assert_array_equal(store.read_rows(range(3, 9)), VALUES[3:9])


def test_nothing_of_an_earlier_run_is_in_a_store_written_in_one_go(tmp_path: Path) -> None:
    in_one_go(tmp_path / "s.zarr", [f"other {n}" for n in range(10)], VALUES + 1, shards=2)
    in_one_go(tmp_path / "s.zarr", IDS[:7], VALUES)
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.utterances == tuple(IDS[:7])
    np.testing.assert_array_equal(store.read(), VALUES[:7])
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]
