import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve

from pipeline.errors import TrialError
from pipeline.metrics import eer, eer_threshold, false_alarm_at, miss_at, probit, roc_of, rocch, thin
from tests.metrics.strategies import RELAXED, TIED, arrays, gaussian

Trials = list[tuple[int, bool]]


def brute(scores: np.ndarray, target: np.ndarray) -> list[tuple[float, float, float]]:
    """Threshold, miss and false alarm rate of every way to divide the scores in two."""
    return [
        (threshold, float(np.mean(scores[target] <= threshold)), float(np.mean(scores[~target] > threshold)))
        for threshold in [-np.inf, *np.unique(scores)]
    ]


@RELAXED
@given(TIED)
def test_points_are_scikit_learns_but_for_some_on_straight_lines(trials: Trials) -> None:
    scores, target = arrays(trials)
    roc = roc_of(scores, target)
    ours = [(round(f, 9), round(m, 9)) for f, m in zip(roc.false_alarm, roc.miss, strict=True)]
    false_alarm, hit, _ = roc_curve(target, scores, drop_intermediate=False)
    theirs = [(round(f, 9), round(1 - h, 9)) for f, h in zip(false_alarm, hit, strict=True)][::-1]
    straight = {
        point
        for before, point, after in zip(theirs, theirs[1:], theirs[2:], strict=False)
        if before[0] == after[0] or before[1] == after[1]
    }
    assert ours == [point for point in theirs if point not in straight or point in ours]
    assert len(set(ours)) == len(ours)


@RELAXED
@given(TIED, st.sampled_from([np.float32, np.float64]))
def test_a_threshold_gives_the_rates_of_its_point(trials: Trials, dtype: type) -> None:
    scores, target = arrays(trials)
    roc = roc_of((scores / 7).astype(dtype), target)
    for threshold, miss, false_alarm in zip(roc.threshold, roc.miss, roc.false_alarm, strict=True):
        accepted = (scores / 7).astype(dtype) > threshold
        assert (1 - accepted[target].mean(), accepted[~target].mean()) == pytest.approx((miss, false_alarm), abs=1e-12)


@RELAXED
@given(TIED)
def test_eer_is_where_the_piecewise_linear_roc_meets_the_diagonal(trials: Trials) -> None:
    scores, target = arrays(trials)
    false_alarm, hit, _ = roc_curve(target, scores, drop_intermediate=False)
    crossings = []
    for k in range(len(hit) - 1):  # brute force: solve miss = false alarm on every segment
        m0, m1, f0, f1 = 1 - hit[k], 1 - hit[k + 1], false_alarm[k], false_alarm[k + 1]
        if (m0 - f0) * (m1 - f1) <= 0 and (m0 - f0) != (m1 - f1):
            share = (m0 - f0) / ((m0 - f0) - (m1 - f1))
            crossings.append(f0 + share * (f1 - f0))
    assert eer(roc_of(scores, target)) == pytest.approx(crossings[0], abs=1e-12)


@RELAXED
@given(TIED)
def test_the_hull_is_that_of_all_points(trials: Trials) -> None:
    scores, target = arrays(trials)
    points = np.array([(f, m) for _, m, f in brute(scores, target)])
    hull = rocch(roc_of(scores, target))
    assert (np.diff(hull.miss) >= 0).all()
    assert (np.diff(hull.false_alarm) <= 0).all()
    # The point where nothing is accepted rightly closes the area; the hull's part below the diagonal is the ROCCH.
    closed = np.vstack([points, [[1, 1]]])
    wanted = ConvexHull(closed).volume
    x, y = np.append(hull.false_alarm, 1), np.append(hull.miss, 1)
    assert 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) == pytest.approx(wanted, abs=1e-9)


@RELAXED
@given(TIED)
def test_the_hulls_eer_is_the_highest_minimum_of_the_error_over_priors(trials: Trials) -> None:
    scores, target = arrays(trials)
    points = brute(scores, target)
    priors = np.linspace(0, 1, 2001)
    costs = np.min([p * miss + (1 - p) * false_alarm for _, miss, false_alarm in points for p in [priors]], axis=0)
    rate = eer(rocch(roc_of(scores, target)))
    assert rate <= eer(roc_of(scores, target)) + 1e-12
    assert costs.max() - 1e-12 <= rate <= costs.max() + 1e-3  # the grid of priors may miss the peak


@RELAXED
@given(TIED)
def test_segments_of_the_hull_are_the_blocks_of_scikit_learns_isotonic_regression(trials: Trials) -> None:
    scores, target = arrays(trials)
    roc = roc_of(scores, target)
    hull = rocch(roc)
    targets, nontargets = target.sum(), (~target).sum()
    hits, others = np.diff(hull.miss) * targets, -np.diff(hull.false_alarm) * nontargets
    segment = np.searchsorted(hull.threshold, scores, side="left") - 1
    weight = np.where(target, 1 / targets, 1 / nontargets)
    share = hits / targets / (hits / targets + others / nontargets)
    fitted = IsotonicRegression().fit_transform(scores, target.astype(float), sample_weight=weight)
    np.testing.assert_allclose(share[segment], fitted, atol=1e-9)


@RELAXED
@given(TIED)
def test_the_threshold_of_the_eer_is_the_most_balanced_one(trials: Trials) -> None:
    scores, target = arrays(trials)
    threshold = eer_threshold(roc_of(scores, target), scores, target)
    imbalance = {t: abs(miss - false_alarm) for t, miss, false_alarm in brute(scores, target)}
    assert np.isfinite(threshold)
    assert imbalance[threshold] == pytest.approx(min(imbalance.values()), abs=1e-12)


@RELAXED
@given(TIED, st.integers(0, 20))
def test_rates_at_a_bound_are_the_best_of_all_thresholds_within_it(trials: Trials, twentieths: int) -> None:
    scores, target = arrays(trials)
    bound, roc = twentieths / 20, roc_of(scores, target)
    points = brute(scores, target)
    assert false_alarm_at(roc, bound) == pytest.approx(min(f for _, m, f in points if m <= bound), abs=1e-12)
    assert miss_at(roc, bound) == pytest.approx(min(m for _, m, f in points if f <= bound), abs=1e-12)


@pytest.mark.parametrize("separation", [0.5, 2.0, 4.0])
def test_gaussian_scores_have_the_eer_of_the_closed_form(separation: float) -> None:
    scores, target = gaussian(separation)
    roc = roc_of(scores, target)
    assert eer(roc) == pytest.approx(norm.cdf(-separation / 2), abs=2e-3)
    assert eer(rocch(roc)) == pytest.approx(norm.cdf(-separation / 2), abs=2e-3)
    assert eer_threshold(roc, scores, target) == pytest.approx(0, abs=0.02)
    assert miss_at(roc, 0.01) == pytest.approx(norm.cdf(norm.ppf(0.99) - separation), abs=5e-3)


def test_perfect_and_useless_scores() -> None:
    target = np.array([True, True, False, False])
    assert eer(roc_of(np.array([3.0, 2, 1, 0]), target)) == 0
    useless = roc_of(np.zeros(4), target)
    assert eer(useless) == eer(rocch(useless)) == 0.5
    assert eer(roc_of(np.array([0.0, 1, 2, 3]), target)) == 1
    assert eer(rocch(roc_of(np.array([0.0, 1, 2, 3]), target))) == 0.5


def test_zero_and_minus_zero_are_one_score() -> None:
    assert len(roc_of(np.array([0.0, -0.0, 0.0, -0.0]), np.array([True, True, False, False])).miss) == 2


def test_empty_one_sided_or_nan_scores_are_errors() -> None:
    with pytest.raises(TrialError, match="0 trials"):
        roc_of(np.zeros(0), np.zeros(0, dtype=bool))
    for value in (True, False):
        with pytest.raises(TrialError, match="one class"):
            roc_of(np.zeros(3), np.full(3, value))
    for value in (np.nan, np.inf):
        with pytest.raises(TrialError, match="1 of 2 scores are NaN or infinite, first: score 1"):
            roc_of(np.array([0, value]), np.array([True, False]))
    with pytest.raises(TrialError, match="2 scores of 3 trials"):
        roc_of(np.zeros(2), np.array([True, False, True]))


def test_thinned_points_follow_the_curve_on_a_det_plot() -> None:
    roc = roc_of(*gaussian(2.0, 20_000))
    few = thin(roc, 100)
    assert (few.false_alarm[0], few.miss[0], few.false_alarm[-1], few.miss[-1]) == (1, 0, 0, 1)
    assert 50 <= len(few.miss) <= 102
    middle = (few.miss > 0.001) & (few.false_alarm > 0.001)
    x, y = probit(few.false_alarm[middle]), probit(few.miss[middle])
    np.testing.assert_allclose(x + y, -2, atol=0.2)  # the DET curve of equal normals is a straight line
    assert np.abs(np.diff(x)).max() < 0.5


def test_probits_are_quantiles_and_finite_at_the_ends() -> None:
    rates = np.array([0.0, 0.01, 0.5, 1.0])
    np.testing.assert_allclose(probit(rates)[1:3], norm.ppf(rates[1:3]))
    assert np.isfinite(probit(rates)).all()
