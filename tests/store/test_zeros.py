"""Vectors of zeros are named by every step that meets them."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Params
from pipeline.config.quality import Quality
from pipeline.errors import StoreError
from pipeline.extraction.quality import exceeded_thresholds, list_counts, measure_store
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.store.zeros import zero_mask
from pipeline.training.aligned_stores import align_stores
from pipeline.training.train import train


def make(path: Path) -> EmbeddingStore:
    values = np.random.default_rng(0).standard_normal((30, 2, 2, 8)).astype(np.float32)
    values[[3, 5, 7, 9], 1, 1] = 0
    attributes = {"encoder": "toy", "weights_sha256": "ab", "dim": 8}
    write_store(path, [f"u{n}" for n in range(30)], values, np.full(30, OK, np.uint8), attributes)
    return EmbeddingStore.open(path)


def test_the_mask_is_that_of_a_plain_loop() -> None:
    values = np.random.default_rng(0).integers(0, 2, (200, 3, 2, 4)).astype(np.float32)
    values[0, 0, 0] = np.nan
    plain = [any(not vector.any() for vector in row.reshape(-1, 4)) for row in values]
    assert 0 < sum(plain) < 200
    np.testing.assert_array_equal(zero_mask(values), plain)
    np.testing.assert_array_equal(zero_mask(values[:, 0, 0]), ~values[:, 0, 0].any(axis=1))


def test_training_names_them(tmp_path: Path) -> None:
    store = make(tmp_path / "s.zarr")
    says = r"s\.zarr: 4 of 30 utterances have a vector of zeros, .* first: u3, u5, u7, …\. Import it again"
    for given in (store, align_stores([store, store])):
        with pytest.raises(StoreError, match=says):
            train(given, Params().train, 0, 50)


def test_the_check_of_a_store_names_them(tmp_path: Path) -> None:
    limits = Quality(max_broken=0)
    figures, _ = measure_store(make(tmp_path / "s.zarr"), limits, 0)
    assert (figures.broken, figures.broken_ids) == (4, ["u3", "u5", "u7", "u9"])
    assert dict(list_counts(figures))["NaN or zero"] == "4, 13.3 %, first: u3, u5, u7, …"
    assert "rows of NaN or zeros 4, 13.3 % (quality.max_broken: 0 %, first: u3, u5, u7, …)" in exceeded_thresholds(
        figures, limits
    )
