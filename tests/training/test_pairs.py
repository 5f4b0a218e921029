from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.train import Train
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.pairs import build_pairs, count_vectors, swap_displacements


def store_of(path: Path, draws: int) -> EmbeddingStore:
    values = np.random.default_rng(0).standard_normal((5, draws, 4, 6), dtype=np.float32)
    write_store(path, list("abcde"), values, np.full(5, OK, np.uint8), {"encoder": "toy", "dim": 6})
    return EmbeddingStore.open(path)


@pytest.mark.parametrize("target", ["utterance", "crop"])
def test_a_pair_starts_with_its_target(tmp_path: Path, target: str) -> None:
    store = store_of(tmp_path / "s.zarr", 3)
    settings, values = Train(target=target, noisy_views=2), store.read()  # type: ignore[arg-type]
    pairs = build_pairs(values, store, settings).reshape(5, 3, -1, 6)
    whole = target == "utterance"
    assert pairs.shape[2] == count_vectors(store, settings) == 3 + whole
    for row in range(5):
        for draw in range(3):
            goal = values[row, :, 0].mean(axis=0) if whole else values[row, draw, 0]
            np.testing.assert_allclose(pairs[row, draw, 0], goal, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(pairs[row, draw, int(whole) :], values[row, draw, :3])


def test_a_single_crop_is_its_own_mean(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.zarr", 1)
    pairs = build_pairs(store.read(), store, Train(target="utterance"))
    np.testing.assert_array_equal(pairs, store.read()[:, 0])


@given(st.integers(1, 9), st.integers(2, 5), st.floats(0, 1), st.integers(0, 99))
def test_a_swapped_view_has_the_displacement_of_another_pair(count: int, views: int, share: float, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    batch = torch.randn(count, views, 4, generator=source, dtype=torch.float64)
    found = swap_displacements(batch, share, False, source)
    assert torch.equal(found[:, 0], batch[:, 0])
    moved, before = found - found[:, :1], batch - batch[:, :1]
    for view in range(1, views):
        far = torch.cdist(moved[:, view], before[:, view])
        assert (far.min(dim=1).values < 1e-9).all()  # some pair's displacement, always of the same view
    own = torch.isclose(moved, before, atol=1e-9).all(dim=2)[:, 1:]
    if share == 0:
        assert own.all()


def test_half_of_the_views_are_swapped_and_lengths_are_kept() -> None:
    batch = torch.nn.functional.normalize(torch.randn(400, 4, 9), dim=2) * 3
    found = swap_displacements(batch, 0.5, True, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.norm(dim=2), torch.full((400, 4), 3.0))
    same = torch.isclose(found, batch, atol=1e-5).all(dim=2)[:, 1:].float()
    assert 0.45 < same.mean() < 0.55
    assert torch.equal(found, swap_displacements(batch, 0.5, True, torch.Generator().manual_seed(0)))
    assert swap_displacements(batch, 0.0, True, torch.Generator()) is batch
