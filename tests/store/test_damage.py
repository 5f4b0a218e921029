"""Damage to any byte of a store is noticed, or harmless; so is its replacement while it is read."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter, write_store
from tests.damage import CountDamage, damage, damages
from tests.project import few_or_many

ROWS, SHARD = 37, 16
IDS = [f"speaker{n // 3}/é{n}.wav" for n in range(ROWS)]
VALUES = np.random.default_rng(0).standard_normal((ROWS, 2, 2, 8)).astype(np.float32)
STATUS = np.where(np.arange(ROWS) == 5, FAILED, OK).astype(np.uint8)
VALUES[5] = np.nan
PRINTS = np.random.default_rng(1).integers(0, 256, (ROWS, 16), dtype=np.uint8)
TRACES = np.array(
    [[[json.dumps({"start": n, "steps": [d, v]}) for v in range(2)] for d in range(2)] for n in range(ROWS)]
)
TRACES = TRACES.astype(object)
TRACES[5] = ""
ATTRIBUTES = {"dim": 8, "encoder": "x", "recipe": {"crop_samples": 32_240, "views": []}, "manifest_sha256": "ab" * 32}

pytestmark = pytest.mark.endurance


def made(path: Path, values: np.ndarray = VALUES, ids: list[str] = IDS, whole: bool = False) -> Path:
    with closing(StoreWriter(path, ids, (2, 2, 8), ATTRIBUTES, SHARD, of_audio=not whole, whole=whole)) as writer:
        for rows in writer.shards():
            part = slice(rows.start, rows.stop)
            writer.write(rows, values[part], STATUS[part], *([] if whole else [TRACES[part], PRINTS[part]]))
        writer.finish()
    return path


def everything(path: Path) -> tuple[Any, ...]:
    """Read all that a store says, as its users do."""
    store = EmbeddingStore.open(path)
    prints, traces = store.fingerprints(), store.traces(np.arange(len(store.utterances)))
    arrays = [store.read(), store.status, *(each for each in (prints, traces) if each is not None)]
    return store.attributes, store.utterances, store.content_sha256, [each.tolist() for each in arrays]


@pytest.mark.parametrize("whole", [False, True])
def test_damage_to_any_file_is_noticed_or_harmless(tmp_path: Path, whole: bool, count_damage: CountDamage) -> None:
    store = made(tmp_path / "s.zarr", whole=whole)
    sound = json.dumps(everything(store))
    for number, file in enumerate(sorted(path for path in store.rglob("*") if path.is_file())):
        original = file.read_bytes()
        for what, content in damages(original, few_or_many(8, 300), number):
            damage(file, content)
            try:
                read = json.dumps(everything(store))
                EmbeddingStore.open(store).verify()
            except StoreError:
                count_damage("noticed")
            else:
                assert read == sound, f"{file.relative_to(store)}, {what}: other content, and not a word"
                count_damage("harmless")
            file.unlink(missing_ok=True)
            file.write_bytes(original)
    assert json.dumps(everything(store)) == sound


def test_every_value_of_the_attributes_is_protected(tmp_path: Path) -> None:
    store = made(tmp_path / "s.zarr")
    entry = store / "zarr.json"
    for key in (*ATTRIBUTES, "content_sha256", "store_sha256"):
        content = json.loads(original := entry.read_text())
        content["attributes"][key] = "another"
        entry.write_text(json.dumps(content))
        with pytest.raises(StoreError, match=r"attributes do not match their store_sha256\). Extract it again"):
            EmbeddingStore.open(store)
        entry.write_text(original)


def test_a_store_of_an_older_version_opens_and_has_no_checksum(tmp_path: Path) -> None:
    store = made(tmp_path / "s.zarr")
    assert EmbeddingStore.open(store).verify()
    content = json.loads((store / "zarr.json").read_text())
    del content["attributes"]["content_sha256"], content["attributes"]["store_sha256"]
    content["attributes"]["schema"] = 1
    (store / "zarr.json").write_text(json.dumps(content))
    opened = EmbeddingStore.open(store)
    assert opened.content_sha256 is None
    assert not opened.verify()


def test_a_chunk_of_another_store_is_found_by_verification(tmp_path: Path) -> None:
    store, other = made(tmp_path / "s.zarr"), made(tmp_path / "o.zarr", VALUES + 1)
    for chunk in (other / "embeddings/c/0").rglob("*"):
        if chunk.is_file():
            shutil.copy(chunk, store / chunk.relative_to(other))
    with pytest.raises(StoreError, match=r"its content does not match its content_sha256\). Extract it again"):
        EmbeddingStore.open(store).verify()


READS: dict[str, Callable[[EmbeddingStore], object]] = {
    "read": lambda store: store.read(),
    "read_rows": lambda store: store.read_rows(range(2)),
    "blocks": lambda store: list(store.blocks()),
    "gather": lambda store: store.gather(np.array([0, 3])),
    "fingerprints": lambda store: store.fingerprints(),
    "traces": lambda store: store.traces(np.array([1])),
    "trace": lambda store: store.trace(1),
    "verify": lambda store: store.verify(),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("warm", [False, True], ids=["opened", "read before"])
def test_a_store_that_was_replaced_is_not_read_as_the_old_one(tmp_path: Path, read: str, warm: bool) -> None:
    store = EmbeddingStore.open(made(tmp_path / "s.zarr"))
    if warm:
        READS[read](store)
    order = np.array([5 if n == 5 else n for n in reversed(range(ROWS))])
    made(tmp_path / "s.zarr", VALUES[order], [IDS[n] for n in order])
    with pytest.raises(StoreError, match=r"s\.zarr: was replaced or removed while it was read\. Run the command again"):
        READS[read](store)


def test_a_store_that_was_removed_is_named_as_that(tmp_path: Path) -> None:
    store = EmbeddingStore.open(made(tmp_path / "s.zarr"))
    shutil.rmtree(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="was replaced or removed while it was read"):
        store.read()


def test_the_same_store_written_again_is_still_the_same(tmp_path: Path) -> None:
    store = EmbeddingStore.open(made(tmp_path / "s.zarr"))
    made(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read(), VALUES)


def test_the_checksum_identifies_the_content(tmp_path: Path) -> None:
    first = EmbeddingStore.open(made(tmp_path / "a.zarr")).content_sha256
    assert EmbeddingStore.open(made(tmp_path / "b.zarr")).content_sha256 == first
    changed = VALUES.copy()
    changed[7, 1, 1, 3] = np.nextafter(changed[7, 1, 1, 3], np.float32(9))
    assert EmbeddingStore.open(made(tmp_path / "c.zarr", changed)).content_sha256 != first
    swapped = [IDS[1], IDS[0], *IDS[2:]]
    assert EmbeddingStore.open(made(tmp_path / "d.zarr", ids=swapped)).content_sha256 != first


def test_a_copy_has_the_attributes_but_a_checksum_of_its_own(tmp_path: Path) -> None:
    store = EmbeddingStore.open(made(tmp_path / "s.zarr"))
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    write_store(tmp_path / "half.zarr", store.utterances[:9], store.read()[:9], store.status[:9], attributes)
    half = EmbeddingStore.open(tmp_path / "half.zarr")
    assert half.attributes == store.attributes
    assert half.content_sha256 != store.content_sha256
