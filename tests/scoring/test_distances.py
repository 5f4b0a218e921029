from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.scoring.distances import COLUMNS, ViewDistances, format_distances, measure_distances
from pipeline.scoring.sampling import read_unit_vectors, sample_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store

IDS = [f"s{n // 4}/{n % 4}" for n in range(40)]
SPEAKERS: dict[str, str | None] = {name: name.split("/")[0] for name in IDS}
CLEAN = np.random.default_rng(0).standard_normal((40, 2, 1, 8))


def stores(folder: Path, failed: int | None = None) -> dict[tuple[str, str], EmbeddingStore]:
    """Raw vectors that noise turns by 60 degrees, and enhanced ones that it leaves where they are."""
    aside = np.random.default_rng(1).standard_normal(CLEAN.shape)
    unit = CLEAN[:, :1] / np.linalg.norm(CLEAN[:, :1], axis=-1, keepdims=True)
    aside -= (aside * unit).sum(axis=-1, keepdims=True) * unit
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    turned = np.repeat(0.5 * unit + np.sqrt(0.75) * aside[:, :1], 2, axis=1)
    found = {}
    for condition, system, values in (
        ("clean", "raw", np.repeat(unit, 2, axis=1)),
        ("clean", "seed", CLEAN),
        ("noise0", "raw", 3 * turned),
        ("noise0", "seed", CLEAN),
    ):
        status = np.full(40, OK, dtype=np.uint8)
        kept = values.astype(np.float32)
        if failed is not None and condition == "noise0":
            kept[failed], status[failed] = np.nan, FAILED
        path = folder / f"{condition}-{system}.zarr"
        write_store(path, IDS, kept, status, {"dim": 8})
        found[condition, system] = EmbeddingStore.open(path)
    return found


def of(found: list[ViewDistances], system: str, pair: str, measure: str) -> tuple[float, ...]:
    return next(row.quantiles for row in found if row[1:4] == (system, pair, measure))


def test_distances_are_those_between_unit_vectors_of_an_utterance(tmp_path: Path) -> None:
    found = measure_distances(stores(tmp_path, failed=3), "clean", SPEAKERS, 0)
    assert of(found, "raw", "itself", "cosine") == pytest.approx((0.5,) * 5, abs=1e-6)
    assert of(found, "raw", "itself", "euclidean") == pytest.approx((1.0,) * 5, abs=1e-6)
    assert of(found, "seed", "itself", "cosine") == pytest.approx((0.0,) * 5, abs=1e-6)
    assert {(row.condition, row.pair) for row in found} == {
        ("noise0", "itself"),
        ("clean", "same speaker"),
        ("clean", "another speaker"),
    }
    assert next(format_distances(found))[:4] == found[0][:4]
    assert len(COLUMNS) == 4 + len(found[0].quantiles)


def test_without_speakers_there_are_no_pairs_of_clean_vectors(tmp_path: Path) -> None:
    assert {row.pair for row in measure_distances(stores(tmp_path), "clean", {}, 0)} == {"itself"}


def test_pairs_of_clean_vectors_are_of_one_speaker_or_of_two(tmp_path: Path) -> None:
    values = np.repeat(np.eye(10, 16)[:, None], 4, axis=1).reshape(40, 1, 1, 16).astype(np.float32)
    write_store(tmp_path / "a.zarr", IDS, values, np.full(40, OK, dtype=np.uint8), {"dim": 16})
    found = measure_distances({("clean", "raw"): EmbeddingStore.open(tmp_path / "a.zarr")}, "clean", SPEAKERS, 0)
    assert of(found, "raw", "same speaker", "cosine") == pytest.approx((0.0,) * 5)
    assert of(found, "raw", "another speaker", "cosine") == pytest.approx((1.0,) * 5)


def test_a_part_of_a_store_reads_as_the_whole_does(tmp_path: Path) -> None:
    store = stores(tmp_path)["noise0", "seed"]
    for rows in ([0, 1, 2, 39], [17], [], list(range(40))):
        read = read_unit_vectors(store, np.array(rows, dtype=np.int64))
        np.testing.assert_array_equal(read, mean_units(unit_crops(store.read()[:, :, 0]))[rows])


def test_a_sample_is_of_whole_blocks_and_a_function_of_the_seed() -> None:
    usable = np.ones(1000, dtype=bool)
    usable[::10] = False
    rows = sample_rows(usable, 64, 0)
    assert len({row // 16 for row in rows}) == 4
    assert usable[rows].all()
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sample_rows(usable, 64, 0))
    assert rows.tolist() != sample_rows(usable, 64, 1).tolist()
    np.testing.assert_array_equal(sample_rows(usable, 5000, 0), np.flatnonzero(usable))
