import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Params
from pipeline.config.quality import Quality
from pipeline.data.recordings import RecordingCheck
from pipeline.errors import ConfigError, StoreError
from pipeline.extraction import quality
from pipeline.extraction.quality import (
    as_json,
    exceeded_thresholds,
    markdown,
    measure_store,
    nearest_cosines,
    read_quality,
)
from pipeline.extraction.quality_plot import draw_quality
from pipeline.report import markdown_report
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, MISSING, OK
from pipeline.store.writer import StoreWriter, write_store
from pipeline.utils.atomic import write_json
from tests.report.test_report import TABLE, measured

LIMITS = Quality()
VIEWS = {"recipe": {"views": [{"name": "clean"}, {"name": "noise"}]}, "dim": 16}


def vectors(rows: int = 60, seed: int = 0) -> np.ndarray:
    """Embeddings [row, 2 draws, 2 views, 16] of length 1, the second view 0.5 away from the first."""
    rng = np.random.default_rng(seed)
    clean = rng.standard_normal((rows, 2, 1, 16))
    clean /= np.linalg.norm(clean, axis=-1, keepdims=True)
    aside = rng.standard_normal(clean.shape)
    aside -= (aside * clean).sum(axis=-1, keepdims=True) * clean
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    angle = 2 * np.arcsin(0.25)  # of a chord of 0.5
    return np.concatenate([clean, np.cos(angle) * clean + np.sin(angle) * aside], axis=2).astype(np.float32)


def stored(folder: Path, values: np.ndarray, status: np.ndarray | None = None) -> EmbeddingStore:
    status = np.full(len(values), OK, np.uint8) if status is None else status
    write_store(folder / "s.zarr", [f"u{n}" for n in range(len(values))], values, status, VIEWS)
    return EmbeddingStore.open(folder / "s.zarr")


def test_distances_cosines_and_norms_are_those_of_the_vectors(tmp_path: Path) -> None:
    figures, spread = measure_store(stored(tmp_path, vectors()), LIMITS, 0)
    assert (figures.rows, figures.missing, figures.failed, figures.broken, figures.duplicates) == (60, 0, 0, 0, 0)
    assert list(figures.views) == ["noise"]
    for percent in ("5", "25", "50", "75", "95"):
        assert figures.views["noise"]["distance"][percent] == pytest.approx(0.5, abs=1e-5)
        assert figures.views["noise"]["cosine"][percent] == pytest.approx(1 - 0.5**2 / 2, abs=1e-5)
        assert figures.norm[percent] == pytest.approx(1, abs=1e-5)
    assert len(spread.distances["noise"]) == 120
    assert exceeded_thresholds(figures, LIMITS) == []


def test_figures_do_not_depend_on_the_size_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path, vectors(100))
    whole, _ = measure_store(store, LIMITS, 0)
    monkeypatch.setattr(quality, "_BLOCK_VALUES", 1)
    monkeypatch.setattr(quality, "_BLOCK_ROWS", 7)
    assert measure_store(store, LIMITS, 0)[0] == whole


def test_the_nearest_neighbour_is_another_row() -> None:
    values = vectors(30)[:, 0, 0] * np.linspace(0.5, 2, 30, dtype=np.float32)[:, None]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosines = unit @ unit.T - 9 * np.eye(30, dtype=np.float32)
    np.testing.assert_allclose(nearest_cosines(values), cosines.max(axis=1), atol=1e-6)
    assert nearest_cosines(values[:1]).tolist() == [-np.inf]


def test_duplicates_broken_failed_and_missing_rows_are_counted_and_exceed(tmp_path: Path) -> None:
    values = vectors(60)
    values[1] = values[0]
    values[2] = values[0] * 3  # the length does not matter
    values[3, 1, 1] = 0
    values[4, 0, 0, 5] = np.nan
    status = np.full(60, OK, np.uint8)
    values[5:10], status[5:10] = np.nan, FAILED
    values[10:12], status[10:12] = np.nan, MISSING
    writer = StoreWriter(tmp_path / "s.zarr", [f"u{n}" for n in range(60)], (2, 2, 16), VIEWS, 64)
    writer.write(range(60), values, status)
    with pytest.raises(StoreError, match="2 of 60 rows are missing"):
        EmbeddingStore.open(writer.folder / "store.zarr")
    figures, _ = measure_store(EmbeddingStore.open(writer.folder / "store.zarr", unfinished=True), LIMITS, 0)
    assert (figures.missing, figures.failed, figures.broken, figures.compared, figures.duplicates) == (2, 5, 2, 51, 3)
    assert [phrase.split(" (")[0] for phrase in exceeded_thresholds(figures, LIMITS)] == [
        "missing rows 2, 3.3 %",
        "failed rows 5, 8.3 %",
        "rows of NaN or zeros 2, 3.3 %",
        "near-duplicate rows 3, 5.9 %",
    ]
    loose = Quality(max_missing=0.1, max_failed=0.1, max_broken=0.1, max_duplicates=0.1)
    assert exceeded_thresholds(figures, loose) == []


def test_a_view_that_is_the_clean_one_exceeds(tmp_path: Path) -> None:
    values = vectors()
    values[:, :, 1] = values[:, :, 0]
    figures, _ = measure_store(stored(tmp_path, values), LIMITS, 0)
    assert exceeded_thresholds(figures, LIMITS) == [
        "view noise at cosine 1.0000 from clean (quality.max_cosine: 0.999)"
    ]


def test_a_large_store_is_compared_by_a_sample_that_is_told(tmp_path: Path) -> None:
    store = stored(tmp_path, vectors(200))
    few = Quality(rows=50)
    figures, spread = measure_store(store, few, 0)
    assert (figures.rows, figures.compared, len(spread.nearest)) == (200, 50, 50)
    assert "(of 50 compared)" in markdown(figures)[0]
    assert measure_store(store, few, 0)[0] == figures
    assert measure_store(store, few, 1)[0] != figures


def test_a_store_without_a_sound_row_is_one_clear_line(tmp_path: Path) -> None:
    store = stored(tmp_path, 0 * vectors(3))
    with pytest.raises(StoreError, match=r"s\.zarr: holds no sound row"):
        measure_store(store, LIMITS, 0)


def test_stores_of_one_view_and_of_one_row_have_figures(tmp_path: Path) -> None:
    figures, spread = measure_store(stored(tmp_path, vectors(1)[:, :1, :1]), LIMITS, 0)
    assert (figures.views, figures.nearest, figures.duplicates) == ({}, {}, 0)
    assert exceeded_thresholds(figures, LIMITS) == []
    draw_quality(spread, "one", tmp_path / "q.png")


def test_the_picture_is_a_png_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    _, spread = measure_store(stored(tmp_path, vectors()), LIMITS, 0)
    for name in ("a.png", "b.png"):
        draw_quality(spread, "s.zarr", tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"tEXt" not in content
    assert content == (tmp_path / "b.png").read_bytes()


def test_without_the_library_a_picture_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    _, spread = measure_store(stored(tmp_path, vectors()), LIMITS, 0)
    with pytest.raises(ConfigError, match=r"\.\[plots\]"):
        draw_quality(spread, "s.zarr", tmp_path / "a.png")


def test_the_report_holds_the_same_figures(tmp_path: Path) -> None:
    figures, _ = measure_store(stored(tmp_path, vectors()), LIMITS, 0)
    recordings = RecordingCheck(50, 1, 2, 3, ("a.wav", "b.wav"), ("c.wav", "d.wav", "e.wav"))
    figures = quality.StoreQuality(**{**figures.__dict__, "recordings": recordings})
    write_json(tmp_path / "q" / "ge2e" / "quality.json", as_json(figures, LIMITS))
    found = read_quality(tmp_path / "q", ["ge2e", "campplus"])
    assert list(found) == ["ge2e"]
    assert markdown(found["ge2e"]) == markdown(figures)
    text = markdown_report({"ge2e": measured(TABLE)}, Params(), None, found)
    assert "| noise | 0.500 | 0.875 |" in text
    assert "clipped 2, 4.0 %; upsampled 3, 6.0 %" in text
    assert text.startswith(markdown_report({"ge2e": measured(TABLE)}, Params(), None)[:-1])
    assert read_quality(tmp_path / "nowhere", ["ge2e"]) == {}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"rows": 1}', "changed"])
def test_a_damaged_quality_file_is_one_clear_line(tmp_path: Path, content: str) -> None:
    figures, _ = measure_store(stored(tmp_path, vectors()), LIMITS, 0)
    if content == "changed":
        content = json.dumps(as_json(figures, LIMITS) | {"views": {"noise": {}}})
    (tmp_path / "ge2e").mkdir()
    (tmp_path / "ge2e" / "quality.json").write_text(content)
    with pytest.raises(StoreError, match="not a quality file"):
        read_quality(tmp_path, ["ge2e"])
