import numpy as np
import pytest
import scipy.stats
import torch

from pipeline.model.training_stats import (
    LEVELS,
    OUTLIER_PERCENTILE,
    NormPercentiles,
    TrainingStats,
    atypicality_percentiles,
    norm_percentiles,
)


def bounds(clean: tuple[float, float, float], noisy: tuple[float, float, float]) -> TrainingStats:
    made = [NormPercentiles(p1=each[0], p50=each[1], p99=each[2]) for each in (clean, noisy)]
    return TrainingStats(clean_norm=made[0], noisy_norm=made[1], atypicality=2.0)


@pytest.mark.parametrize(
    ("clean", "noisy", "low", "high"),
    [
        ((1, 1, 1), (1, 1, 1), 0.8, 1.25),  # an encoder that normalises
        ((6, 8, 12), (7, 8, 11), 3, 24),  # as far below 6 as 6 is below 12
        ((8, 9, 11), (4, 8, 10), 4 / 2.75, 30.25),
        ((1, 8, 100), (2, 8, 90), 0.25, 400),
        ((0, 8, 10), (1, 8, 10), 0, 40),
    ],
)
def test_fences_are_as_wide_as_what_is_between_them(
    clean: tuple[float, float, float], noisy: tuple[float, float, float], low: float, high: float
) -> None:
    made = bounds(clean, noisy)
    assert made.fences == pytest.approx((low, high))
    norms = torch.tensor([0.99 * low - 1e-9, 1.01 * low, 0.99 * high, 1.01 * high], dtype=torch.float64)
    assert made.outside_fences(norms).tolist() == [True, False, False, True]


def test_percentiles_are_of_all_vectors_whatever_their_axes() -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 4, 2, 5)).astype(np.float32)
    norms = np.sort(np.sqrt((vectors.astype(float).reshape(-1, 5) ** 2).sum(axis=1)))
    found = norm_percentiles(vectors)
    for value, share in ((found.p1, 0.01), (found.p50, 0.5), (found.p99, 0.99)):
        place = share * (len(norms) - 1)
        below = int(place)
        expected = norms[below] + (place - below) * (norms[below + 1] - norms[below])
        assert value == pytest.approx(expected, rel=1e-5)
    assert norm_percentiles(np.float32(1e30) * vectors).p50 == pytest.approx(1e30 * found.p50, rel=1e-5)


def test_the_bound_of_atypicality_is_exceeded_by_one_in_a_thousand() -> None:
    held_out = torch.from_numpy(np.random.default_rng(0).chisquare(8, 20_000).astype(np.float32))
    bound = atypicality_percentiles(held_out)[LEVELS.index(OUTLIER_PERCENTILE)]
    assert int((held_out > bound).sum()) in (20, 21)  # it is rounded


def test_confidence_is_the_share_of_held_out_vectors_that_are_as_atypical() -> None:
    rng = np.random.default_rng(0)
    held_out = rng.chisquare(8, 20_000).astype(np.float32)
    made = bounds((1, 1, 1), (1, 1, 1)).model_copy(
        update={"percentiles": atypicality_percentiles(torch.from_numpy(held_out))}
    )
    others = rng.chisquare(8, 5000).astype(np.float32)
    found = made.confidence(others)
    assert found is not None
    np.testing.assert_allclose(found, (held_out >= others[:, None]).mean(axis=1), atol=0.02)
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01
    usual, odd = made.confidence(np.float32([0, 1e-3])), made.confidence(np.float32([1e3, np.inf]))
    assert (usual.min() > 0.999, odd.tolist()) == (True, [0.0, 0.0])  # type: ignore[union-attr]
    assert bounds((1, 1, 1), (1, 1, 1)).confidence(others) is None
