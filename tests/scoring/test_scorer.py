from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_similarity

from pipeline.config.score import ComparisonName
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.errors import StoreError, TrialError
from pipeline.scoring.comparison import cosine_scores, mean_units, pairwise_scores, unit_crops
from pipeline.scoring.enrolment import EnrolmentModels
from pipeline.scoring.scorer import score_list
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store

RNG = np.random.default_rng(0)
IDS = [f"s{n // 4}/{n % 4}" for n in range(24)]
SPEAKERS = {name: name.split("/")[0] for name in IDS}
CENTRES = np.repeat(RNG.standard_normal((6, 1, 1, 8)), 4, axis=0)


def make(path: Path, spread: float, seed: int = 1, failed: int | None = None, **attributes: object) -> Path:
    values = (CENTRES + spread * np.random.default_rng(seed).standard_normal((24, 3, 1, 8))).astype(np.float32)
    status = np.full(24, OK, dtype=np.uint8)
    if failed is not None:
        values[failed], status[failed] = np.nan, FAILED
    write_store(path, IDS, values, status, {"encoder": "toy", "weights_sha256": "ab", "dim": 8} | attributes)
    return path


def test_scores_are_cosines_of_mean_unit_crops(tmp_path: Path) -> None:
    enrol, test = (EmbeddingStore.open(make(tmp_path / f"{n}.zarr", 0.5, n)) for n in (1, 2))
    trials = make_all_pairs(list(SPEAKERS.values()), 10_000, 0)
    means = []
    for store in (enrol, test):
        crops = store.read()[:, :, 0].astype(np.float64)
        means.append((crops / np.linalg.norm(crops, axis=2, keepdims=True)).mean(axis=1))
    expected = cosine_similarity(*means)[trials.enrol, trials.test]
    scores = cosine_scores(*(mean_units(unit_crops(store.read()[:, :, 0])) for store in (enrol, test)), trials)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_pairwise_scores_are_the_mean_distances_of_all_crops(tmp_path: Path) -> None:
    enrol, test = (EmbeddingStore.open(make(tmp_path / f"{n}.zarr", 0.5, n)) for n in (1, 2))
    trials = make_all_pairs(list(SPEAKERS.values()), 10_000, 0)
    units = []
    for store in (enrol, test):
        crops = store.read()[:, :, 0].astype(np.float64)
        units.append(crops / np.linalg.norm(crops, axis=2, keepdims=True))
    expected = [-cdist(units[0][a], units[1][b]).mean() for a, b in zip(trials.enrol, trials.test, strict=True)]
    np.testing.assert_allclose(score_list(enrol, test, trials, comparison="pairwise")[1], expected, atol=1e-6)


def test_an_utterance_is_near_itself(tmp_path: Path) -> None:
    store = EmbeddingStore.open(make(tmp_path / "a.zarr", 0.0))
    itself = Trials(np.arange(24), np.arange(24), None)
    np.testing.assert_allclose(score_list(store, store, itself, comparison="pairwise")[1], 0, atol=1e-3)


@pytest.mark.parametrize("crops", [1, 4])
@pytest.mark.parametrize("side", [7, 300])  # of few trials each by itself; of many, all pairs of some by one product
def test_distances_are_those_of_every_pair_of_crops_by_itself(crops: int, side: int) -> None:
    rng = np.random.default_rng(side)
    enrol, test = (rng.standard_normal((count, crops, 6)) for count in (side, side + 20))
    test = np.concatenate([test, test[:, :1] + 1], axis=1)  # the sides may have other numbers of crops
    enrol, test = (units / np.linalg.norm(units, axis=2, keepdims=True) for units in (enrol, test))
    test[:3, :crops] = enrol[:3]
    pairs = rng.permutation(np.indices((side, side + 20)).reshape(2, -1), axis=1)[:, : side * side * 7 // 8]
    trials = Trials(*pairs, None)
    single = enrol.astype(np.float32), test.astype(np.float32)
    scores = pairwise_scores(*single, trials)
    expected = np.array([-cdist(enrol[a], test[b]).mean() for a, b in pairs.T])
    near = (pairs[0] == pairs[1]) & (pairs[0] < 3)
    np.testing.assert_allclose(scores[~near], expected[~near], atol=2e-6)
    np.testing.assert_allclose(scores[near], expected[near], atol=1e-3)
    some = rng.permutation(len(trials))[:1000]
    alone = pairwise_scores(*single, Trials(pairs[0, some], pairs[1, some], None))
    np.testing.assert_allclose(alone, scores[some], atol=1e-3)
    np.testing.assert_allclose(alone[~near[some]], scores[some][~near[some]], atol=2e-6)


def test_no_trials_have_no_scores() -> None:
    units = np.ones((2, 1, 1), dtype=np.float32)
    assert len(pairwise_scores(units, units, Trials(np.array([], int), np.array([], int), None))) == 0


def test_pairwise_models_are_all_crops_of_their_utterances_that_were_encoded(tmp_path: Path) -> None:
    enrol = EmbeddingStore.open(make(tmp_path / "a.zarr", 0.5, 1, failed=2))
    test = EmbeddingStore.open(make(tmp_path / "b.zarr", 0.5, 2))
    models = EnrolmentModels(
        ("one", "mixed", "none", "many"), np.array([3, 0, 2, 9, 2, 4, 5, 6, 7]), np.array([0, 1, 4, 5])
    )
    trials = Trials(*RNG.integers([[4], [24]], size=(2, 9000)), None)
    kept, scores = score_list(enrol, test, trials, models, comparison="pairwise")
    assert len(kept) == (trials.enrol != 2).sum()
    crops = [store.read()[:, :, 0].astype(np.float64) for store in (enrol, test)]
    units = [each / np.linalg.norm(each, axis=2, keepdims=True) for each in crops]
    members = {0: [3], 1: [0, 9], 3: [4, 5, 6, 7]}
    expected = {
        (model, row): -cdist(np.concatenate(units[0][rows]), units[1][row]).mean()
        for model, rows in members.items()
        for row in range(24)
    }
    wanted = [expected[pair] for pair in zip(kept.enrol.tolist(), kept.test.tolist(), strict=True)]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


@pytest.mark.parametrize("comparison", ["cosine", "pairwise"])
def test_vectors_of_zeros_and_crops_that_cancel_are_named(tmp_path: Path, comparison: ComparisonName) -> None:
    values = np.ones((5, 2, 1, 4), dtype=np.float32)
    values[1, 1], values[3], values[4, 1] = 0, 0, -1
    attributes = {"encoder": "toy", "weights_sha256": "ab", "dim": 4}
    write_store(tmp_path / "z.zarr", list("abcde"), values, np.full(5, OK, np.uint8), attributes)
    store = EmbeddingStore.open(tmp_path / "z.zarr")
    says = r"z\.zarr: 2 of 5 utterances have a vector of zeros, .* first: b, d\. Import it again with --skip zeros"
    for pair in ((0, 1), (3, 0)):
        with pytest.raises(StoreError, match=says):
            score_list(store, store, Trials(*(np.array([row]) for row in pair), None), comparison=comparison)
    models = EnrolmentModels(("m", "n"), np.array([0, 2, 1, 2]), np.array([0, 2]))
    with pytest.raises(StoreError, match=says):
        score_list(store, store, Trials(np.array([1]), np.array([0]), None), models, comparison=comparison)
    assert (
        len(score_list(store, store, Trials(np.array([0]), np.array([0]), None), models, comparison=comparison)[1]) == 1
    )
    if comparison == "cosine":
        with pytest.raises(TrialError, match=r"z\.zarr: .*first that of a and e: the crops of one of them cancel"):
            score_list(store, store, Trials(np.array([0, 0]), np.array([2, 4]), None))


def test_stores_of_other_dimensions_are_named_with_them(tmp_path: Path) -> None:
    first = EmbeddingStore.open(make(tmp_path / "a.zarr", 0.1))
    values = np.ones((2, 3, 1, 4), dtype=np.float32)
    attributes = {"encoder": "other", "weights_sha256": "cd", "dim": 4}
    write_store(tmp_path / "b.zarr", ["a", "b"], values, np.full(2, OK, np.uint8), attributes)
    with pytest.raises(StoreError, match=r"a\.zarr and .*b\.zarr cannot be compared: dim is 8 and 4"):
        score_list(first, EmbeddingStore.open(tmp_path / "b.zarr"), Trials(np.array([0]), np.array([1]), None))


def test_a_list_leaves_failed_utterances_out(tmp_path: Path) -> None:
    enrol = EmbeddingStore.open(make(tmp_path / "a.zarr", 0.1))
    test = EmbeddingStore.open(make(tmp_path / "b.zarr", 0.1, failed=1))
    trials = Trials(np.array([0, 0, 0]), np.array([1, 2, 8]), np.array([True, True, False]))
    kept, scores = score_list(enrol, test, trials)
    assert kept.test.tolist() == [2, 8]
    assert scores[0] > scores[1]
    with pytest.raises(TrialError, match="no trials are left"):
        score_list(enrol, test, trials.keep(np.array([True, False, False])))


def test_stores_of_other_encoders_or_one_enhanced_are_not_compared(tmp_path: Path) -> None:
    raw = EmbeddingStore.open(make(tmp_path / "a.zarr", 0.1))
    trials = make_all_pairs(list(SPEAKERS.values()), 100, 0)
    for name, attributes in (("b", {"weights_sha256": "other"}), ("c", {"enhanced_by_sha256": "ef", "timestep": 50})):
        other = EmbeddingStore.open(make(tmp_path / f"{name}.zarr", 0.1, **attributes))
        with pytest.raises(StoreError, match="cannot be compared"):
            score_list(raw, other, trials)


def test_blocks_hold_every_trial() -> None:
    vectors = RNG.standard_normal((50, 8)).astype(np.float32)
    trials = Trials(*RNG.integers(50, size=(2, 1500)), np.zeros(1500, dtype=bool))
    expected = np.einsum("md,md->m", vectors[trials.enrol], vectors[trials.test])
    np.testing.assert_array_equal(cosine_scores(vectors, vectors, trials), expected)
