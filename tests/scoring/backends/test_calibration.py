import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pipeline.errors import ConfigError, TrialError
from pipeline.metrics import cllr, min_cllr, roc_of, rocch
from pipeline.scoring.backends.calibration import Calibration, fit_calibration, stack_quality
from tests.metrics.strategies import RELAXED, gaussian


def columns(count: int, features: int, seed: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping scores of systems on scales of their own."""
    rng = np.random.default_rng(seed)
    target = rng.random(count) < share
    scores = rng.standard_normal((count, features)) + np.linspace(0.5, 2, features) * target[:, None]
    return 10.0 ** rng.integers(-2, 3, features) * scores + rng.normal(0, 5, features), target


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_it_is_scikit_learns_weighted_logistic_regression(features: int, prior: float) -> None:
    scores, target = columns(3000, features, features)
    fitted = fit_calibration(scores, target, prior)
    scaled = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    weights = np.where(target, prior / target.sum(), (1 - prior) / (~target).sum())
    reference = LogisticRegression(C=1e6, tol=1e-10, max_iter=10_000).fit(scaled, target, sample_weight=weights)
    expected = reference.decision_function(scaled) - np.log(prior / (1 - prior))
    np.testing.assert_allclose(fitted.apply(scores), expected, atol=1e-4)


def test_scores_of_gaussians_get_their_true_ratios() -> None:
    # N(mu, sigma) against N(-mu, sigma): the log-likelihood ratio of s is 2 mu s / sigma^2.
    rng = np.random.default_rng(0)
    target = np.arange(200_000) < 50_000
    scores = rng.normal(np.where(target, 0.3, -0.3), 0.25)[:, None]
    fitted = fit_calibration(scores, target)
    assert fitted.weights[0] == pytest.approx(2 * 0.3 / 0.25**2, rel=0.02)
    assert fitted.offset == pytest.approx(0, abs=0.03)
    elsewhere = fit_calibration(scores * 7 - 3, target, prior=0.2)
    np.testing.assert_allclose(elsewhere.apply(scores * 7 - 3), 2 * 0.3 / 0.25**2 * scores[:, 0], atol=0.4, rtol=0.02)


@RELAXED
@given(st.integers(0, 1000), st.sampled_from([0.1, 1.0, 30.0]), st.floats(-20, 20))
def test_cllr_falls_to_that_of_calibrated_scores(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    target = rng.random(400) < 0.3
    scores = scale * (rng.standard_normal(400) + 2 * target) + shift
    ratios = fit_calibration(scores[:, None], target).apply(scores[:, None])
    least = min_cllr(rocch(roc_of(scores, target)))
    assert least <= cllr(ratios, target) + 1e-9
    assert cllr(ratios, target) <= min(1, cllr(scores, target)) + 1e-6
    assert cllr(ratios, target) <= least + 0.1


def test_scores_that_are_ratios_stay_as_they_are() -> None:
    scores, target = gaussian(2.0)
    fitted = fit_calibration(scores[:, None], target)
    assert fitted.weights[0] == pytest.approx(1, abs=0.05)
    assert fitted.offset == pytest.approx(0, abs=0.05)


def test_fusion_is_worth_more_than_its_parts() -> None:
    scores, target = columns(5000, 2, 0)
    fused = cllr(fit_calibration(scores, target).apply(scores), target)
    assert fused < min(cllr(fit_calibration(one, target).apply(one), target) for one in (scores[:, :1], scores[:, 1:]))


def test_quality_measures_move_the_threshold() -> None:
    # Short speech raises all scores here: only their log duration says which threshold is right.
    rng = np.random.default_rng(0)
    target = rng.random(20_000) < 0.5
    seconds = rng.uniform(1, 30, (2, 20_000))
    scores = rng.standard_normal(20_000) + 2 * target - 2 * np.log(seconds.min(axis=0))
    quality = stack_quality(*np.log(seconds))
    alone = fit_calibration(scores[:, None], target).apply(scores[:, None])
    both = np.column_stack([scores, quality])
    fitted = fit_calibration(both, target)
    assert cllr(fitted.apply(both), target) < 0.8 * cllr(alone, target)
    assert fitted.weights[1] / fitted.weights[0] == pytest.approx(2, rel=0.05)
    assert fitted.weights[2] / fitted.weights[0] == pytest.approx(0, abs=0.1)
    np.testing.assert_array_equal(stack_quality(*np.log(seconds[::-1])), quality)  # which side is which does not matter
    np.testing.assert_array_equal(stack_quality(np.array([1, 5]), np.array([2, 3])), [[1, 2], [3, 5]])


def test_separable_scores_do_not_diverge() -> None:
    scores, target = np.array([[-2.0], [-1], [1], [2]]), np.array([False, False, True, True])
    fitted = fit_calibration(scores, target)
    assert 1 < fitted.weights[0] < 100
    assert fitted.offset == pytest.approx(0, abs=1e-3)
    assert fit_calibration(scores, target, ridge=1e-3).weights[0] < fitted.weights[0]


def test_columns_that_say_nothing_get_no_weight() -> None:
    scores, target = columns(1000, 1, 0)
    alone = fit_calibration(scores, target)
    fitted = fit_calibration(np.column_stack([scores, np.full(1000, 0.1)]), target)
    assert fitted.weights[1] == 0
    assert (fitted.weights[0], fitted.offset) == pytest.approx((alone.weights[0], alone.offset), rel=1e-4)


def test_what_cannot_be_learnt_from_is_an_error() -> None:
    scores, target = columns(20, 2, 0, share=0.5)
    for labels in (np.ones(20, dtype=bool), np.zeros(20, dtype=bool)):
        with pytest.raises(TrialError, match="one class"):
            fit_calibration(scores, labels)
    with pytest.raises(TrialError, match="by columns"):
        fit_calibration(scores[:, 0], target)
    scores[3, 1] = -np.inf
    with pytest.raises(TrialError, match="column 2 of 2"):
        fit_calibration(scores, target)
    with pytest.raises(ConfigError, match="prior"):
        fit_calibration(scores, target, prior=1)
    with pytest.raises(ConfigError, match="ridge"):
        fit_calibration(scores, target, ridge=0)
    with pytest.raises(TrialError, match="do not fit"):
        Calibration(np.ones(1), 0.0).apply(scores)
