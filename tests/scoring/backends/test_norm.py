from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest

from pipeline.config.score import Norm
from pipeline.errors import ConfigError, TrialError
from pipeline.scoring.backends.norm import CohortStatistics, compute_cohort_statistics, normalise_scores


def units(count: int, seed: int, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sides(vectors: np.ndarray, cohort: np.ndarray, top: int | None) -> Iterator[tuple[float, float]]:
    """Mean and deviation of each utterance the slow way, in float64."""
    for vector in vectors.astype(np.float64):
        ranked = sorted((float(vector @ other) for other in cohort.astype(np.float64)), reverse=True)[:top]
        yield float(np.mean(ranked)), float(np.std(ranked))


@pytest.mark.parametrize(("kind", "top"), [("z", None), ("t", None), ("s", None), ("as", 5), ("as", 40)])
def test_every_norm_is_that_of_a_loop_over_trials(kind: Norm, top: int | None) -> None:
    enrol, test, cohort = units(7, 0), units(9, 1), units(40, 2)
    rng = np.random.default_rng(3)
    rows, columns = rng.integers(7, size=200), rng.integers(9, size=200)
    scores = np.einsum("md,md->m", enrol[rows], test[columns])
    given = normalise_scores(
        kind,
        scores,
        compute_cohort_statistics(enrol, cohort, top=top),
        compute_cohort_statistics(test, cohort, top=top),
        rows,
        columns,
    )
    ours, theirs = list(sides(enrol, cohort, top)), list(sides(test, cohort, top))
    for row, column, score, normalised in zip(rows, columns, scores, given, strict=True):
        z = (score - ours[row][0]) / ours[row][1]
        t = (score - theirs[column][0]) / theirs[column][1]
        expected = {"z": z, "t": t, "s": (z + t) / 2, "as": (z + t) / 2}[kind]
        assert normalised == pytest.approx(expected, abs=1e-4)
    assert given.dtype == scores.dtype


@pytest.mark.parametrize("top", [None, 6])
@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_blocks_do_not_show(top: int | None, block: int) -> None:
    vectors, cohort = units(30, 0), units(25, 1)
    whole, parts = (
        compute_cohort_statistics(vectors, cohort, top=top),
        compute_cohort_statistics(vectors, cohort, top=top, block=block),
    )
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-7)
    np.testing.assert_allclose(parts.std, whole.std, atol=1e-7)


@pytest.mark.parametrize("top", [None, 3])
def test_nobody_is_his_own_impostor(top: int | None) -> None:
    vectors, cohort = units(12, 0), units(20, 1)
    speakers, others = np.arange(12) % 5, np.arange(20) % 7
    given = compute_cohort_statistics(vectors, cohort, top=top, exclude=(speakers, others))
    for row in range(12):
        left = cohort[others != speakers[row]]
        mean, std = next(sides(vectors[row : row + 1], left, top))
        assert (given.mean[row], given.std[row]) == pytest.approx((mean, std), abs=1e-6)


def test_any_comparison_will_do_and_is_asked_once_for_each_utterance() -> None:
    crops, cohort = units(24, 0).reshape(6, 4, 8), units(40, 1).reshape(10, 4, 8)
    asked = 0

    def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(one)
        return -np.linalg.norm(one[:, None, :, None] - other[None, :, None, :], axis=4).mean(axis=(2, 3))

    given = compute_cohort_statistics(crops, cohort, distances, top=4, block=20)
    assert asked == 6
    best = np.sort(distances(crops, cohort), axis=1)[:, -4:]
    np.testing.assert_allclose(given.mean, best.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(given.std, best.std(axis=1), atol=1e-6)


def test_what_failed_is_nan_and_does_not_count_in_the_cohort() -> None:
    vectors, cohort = units(5, 0), units(10, 1)
    clean = compute_cohort_statistics(vectors, cohort[1:], exclude=(np.arange(5), np.arange(1, 10)))
    vectors[2], cohort[0] = np.nan, np.nan
    given = compute_cohort_statistics(vectors, cohort, exclude=(np.arange(5), np.arange(10)))
    assert np.flatnonzero(np.isnan(given.mean)).tolist() == np.flatnonzero(np.isnan(given.std)).tolist() == [2]
    np.testing.assert_allclose(np.delete(given.mean, 2), np.delete(clean.mean, 2), atol=1e-7)
    index = np.array([1, 2])
    assert np.isnan(normalise_scores("as", np.ones(2), given, given, index, index)).tolist() == [False, True]


def test_the_argument_is_not_written_to() -> None:
    vectors = units(5, 0)
    kept = units(5, 1) @ vectors.T
    before = kept.copy()
    compute_cohort_statistics(vectors, vectors, lambda one, other: kept, top=3)
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize("kind", ["z", "t", "s"])
def test_impostor_scores_become_standard_normal(kind: Literal["z", "t", "s"]) -> None:
    # Of the cohort itself, mean and deviation of one side's normalised scores are 0 and 1 for every utterance.
    vectors, cohort = units(6, 0), units(50, 1)
    rows, columns = np.repeat(np.arange(6), 50), np.tile(np.arange(50), 6)
    flat = CohortStatistics(np.zeros(50), np.ones(50))
    scores = np.einsum("md,md->m", vectors[rows], cohort[columns])
    if kind == "t":
        given = normalise_scores(kind, scores, flat, compute_cohort_statistics(vectors, cohort), columns, rows)
    else:
        given = normalise_scores(kind, scores, compute_cohort_statistics(vectors, cohort), flat, rows, columns)
    table = given.reshape(6, 50)
    if kind == "s":
        table = 2 * table - scores.reshape(6, 50)
    np.testing.assert_allclose(table.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(table.std(axis=1), 1, atol=1e-5)


def test_cohorts_that_cannot_do_are_errors() -> None:
    vectors, cohort = units(4, 0), units(5, 1)
    with pytest.raises(ConfigError, match="2 at least"):
        compute_cohort_statistics(vectors, cohort, top=1)
    with pytest.raises(TrialError, match="cohort of 5 utterances is too small: the 6 highest"):
        compute_cohort_statistics(vectors, cohort, top=6)
    with pytest.raises(TrialError, match="cohort of 1 utterances is too small: at least 2 are needed"):
        compute_cohort_statistics(vectors, cohort[:1])
    with pytest.raises(TrialError, match="cohort of 0 utterances"):
        compute_cohort_statistics(vectors, np.full_like(cohort, np.nan))
    with pytest.raises(TrialError, match="cohort of 1 utterances of other speakers"):
        compute_cohort_statistics(vectors, cohort, exclude=(np.array([0, 1, 2, 3]), np.array([1, 1, 1, 1, 2])))
    with pytest.raises(TrialError, match="4 of 4 utterances do not differ, first of row 0"):
        compute_cohort_statistics(vectors, np.repeat(cohort[:1], 9, axis=0))
