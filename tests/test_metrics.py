import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_curve

from pipeline.errors import TrialError
from pipeline.metrics import Ranking, det_points, eer, min_dcf, speaker_bootstrap

# Few different values, so that ties within and across classes are common.
TIED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60).filter(
    lambda trials: 0 < sum(target for _, target in trials) < len(trials)
)


def arrays(trials: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, target = zip(*trials, strict=True)
    return np.array(scores, dtype=np.float64), np.array(target)


@given(TIED)
def test_the_roc_is_scikit_learns_even_with_ties(trials: list[tuple[int, bool]]) -> None:
    scores, target = arrays(trials)
    false_alarm, hit, _ = roc_curve(target, scores, drop_intermediate=False)
    roc = Ranking(scores, target).roc()
    np.testing.assert_allclose(roc.false_alarm[::-1], false_alarm, atol=1e-12)
    np.testing.assert_allclose(1 - roc.miss[::-1], hit, atol=1e-12)


@given(TIED)
def test_eer_is_where_the_piecewise_linear_roc_meets_the_diagonal(trials: list[tuple[int, bool]]) -> None:
    scores, target = arrays(trials)
    false_alarm, hit, _ = roc_curve(target, scores, drop_intermediate=False)
    crossings = []
    for k in range(len(hit) - 1):  # brute force: solve miss = false alarm on every segment
        m0, m1, f0, f1 = 1 - hit[k], 1 - hit[k + 1], false_alarm[k], false_alarm[k + 1]
        if (m0 - f0) * (m1 - f1) <= 0 and (m0 - f0) != (m1 - f1):
            share = (m0 - f0) / ((m0 - f0) - (m1 - f1))
            crossings.append(f0 + share * (f1 - f0))
    assert eer(Ranking(scores, target).roc()) == pytest.approx(crossings[0], abs=1e-12)


@given(TIED, st.sampled_from([0.01, 0.05, 0.5]))
def test_min_dcf_is_the_least_cost_over_every_threshold(trials: list[tuple[int, bool]], p: float) -> None:
    scores, target = arrays(trials)
    costs = []
    for threshold in [-np.inf, *np.unique(scores)]:
        miss, false_alarm = np.mean(scores[target] <= threshold), np.mean(scores[~target] > threshold)
        costs.append((p * miss + (1 - p) * false_alarm) / min(p, 1 - p))
    assert min_dcf(Ranking(scores, target).roc(), p) == pytest.approx(min(costs), abs=1e-12)


@given(TIED, st.data())
def test_a_weight_counts_a_trial_that_many_times(trials: list[tuple[int, bool]], data: st.DataObject) -> None:
    scores, target = arrays(trials)
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores))))
    repeated = np.repeat(np.arange(len(scores)), weights)
    if not 0 < target[repeated].sum() < len(repeated):
        return
    weighted = Ranking(scores, target).roc(weights.astype(np.float64))
    plain = Ranking(scores[repeated], target[repeated]).roc()
    assert eer(weighted) == pytest.approx(eer(plain), abs=1e-12)
    assert min_dcf(weighted, 0.05) == pytest.approx(min_dcf(plain, 0.05), abs=1e-12)


def test_gaussian_scores_have_the_eer_of_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(2, 1, 200_000), rng.normal(0, 1, 200_000)])
    target = np.arange(400_000) < 200_000
    assert eer(Ranking(scores, target).roc()) == pytest.approx(norm.cdf(-1), abs=2e-3)


def test_perfect_and_useless_scores() -> None:
    target = np.array([True, True, False, False])
    perfect = Ranking(np.array([3.0, 2, 1, 0]), target).roc()
    assert eer(perfect) == 0
    assert min_dcf(perfect, 0.01) == 0
    useless = Ranking(np.zeros(4), target).roc()
    assert eer(useless) == 0.5
    assert min_dcf(useless, 0.01) == 1


def test_empty_one_sided_or_nan_scores_are_errors() -> None:
    with pytest.raises(TrialError, match="0 trials"):
        Ranking(np.zeros(0), np.zeros(0, dtype=bool))
    with pytest.raises(TrialError, match="one class"):
        Ranking(np.zeros(3), np.ones(3, dtype=bool))
    with pytest.raises(TrialError, match="NaN"):
        Ranking(np.array([0, np.nan]), np.array([True, False]))


@settings(deadline=None)
@given(st.integers(0, 5))
def test_the_interval_is_seeded_and_holds_the_estimate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(12), 4)
    left, right = (index.ravel() for index in np.meshgrid(np.arange(48), np.arange(48)))
    target = speakers[left] == speakers[right]
    scores = rng.normal(size=len(left)) + 1.5 * target + rng.normal(size=12)[speakers[left]]
    ranking = Ranking(scores, target)
    sides = speakers[left], speakers[right]
    low, high = speaker_bootstrap(ranking, *sides, eer, 100, seed)
    assert (low, high) == speaker_bootstrap(ranking, *sides, eer, 100, seed)
    assert 0 <= low < eer(ranking.roc()) < high <= 1


def test_det_points_run_from_all_accepted_to_all_rejected() -> None:
    roc = Ranking(np.random.default_rng(0).normal(size=5_000), np.arange(5_000) % 2 == 0).roc()
    points = det_points(roc, 50)
    assert points[0] == (1.0, 0.0)
    assert points[-1] == (0.0, 1.0)
    assert len(points) == 50
