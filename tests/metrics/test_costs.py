import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from pipeline.config.score import STANDARD, OperatingPoint
from pipeline.errors import TrialError
from pipeline.metrics import act_dcf, cllr, min_cllr, min_dcf, min_dcf_threshold, roc_of, rocch
from tests.metrics.strategies import RELAXED, TIED, arrays, gaussian

Trials = list[tuple[int, bool]]
POINTS = st.builds(
    OperatingPoint,
    p_target=st.sampled_from([0.01, 0.05, 0.5, 0.9]),
    c_miss=st.sampled_from([1.0, 10.0]),
    c_fa=st.sampled_from([1.0, 5.0]),
)


def cost(scores: np.ndarray, target: np.ndarray, threshold: float, point: OperatingPoint) -> float:
    """The textbook's normalised detection cost of a threshold."""
    miss, false_alarm = np.mean(scores[target] <= threshold), np.mean(scores[~target] > threshold)
    paid = point.c_miss * point.p_target * miss + point.c_fa * (1 - point.p_target) * false_alarm
    return float(paid / min(point.c_miss * point.p_target, point.c_fa * (1 - point.p_target)))


@RELAXED
@given(TIED, POINTS)
def test_min_dcf_is_the_least_cost_over_every_threshold(trials: Trials, point: OperatingPoint) -> None:
    scores, target = arrays(trials)
    roc = roc_of(scores, target)
    least = min(cost(scores, target, threshold, point) for threshold in [-np.inf, *np.unique(scores)])
    assert min_dcf(roc, point) == pytest.approx(least, abs=1e-9)
    assert cost(scores, target, min_dcf_threshold(roc, point), point) == pytest.approx(least, abs=1e-9)
    assert min_dcf(rocch(roc), point) == pytest.approx(least, abs=1e-9)  # vertices are enough


@RELAXED
@given(TIED, POINTS)
def test_act_dcf_is_the_cost_of_the_bayes_threshold(trials: Trials, point: OperatingPoint) -> None:
    scores, target = arrays(trials)
    threshold = np.log(point.c_fa * (1 - point.p_target) / (point.c_miss * point.p_target))
    assert act_dcf(scores, target, point) == pytest.approx(cost(scores, target, threshold, point), abs=1e-9)
    assert act_dcf(scores, target, point) >= min_dcf(roc_of(scores, target), point) - 1e-9


def test_calibrated_scores_cost_at_the_bayes_threshold_what_they_can_at_best() -> None:
    scores, target = gaussian(3.0)
    for point in (*STANDARD, OperatingPoint(p_target=0.1, c_miss=10, c_fa=2)):
        least = min_dcf(roc_of(scores, target), point)
        assert act_dcf(scores, target, point) == pytest.approx(least, abs=0.02)
        miss = norm.cdf((point.threshold - 4.5) / 3)
        false_alarm = norm.sf((point.threshold + 4.5) / 3)
        a, b = point.weights
        assert act_dcf(scores, target, point) == pytest.approx(a * miss + b * false_alarm, rel=0.05)
    assert act_dcf(scores + 5, target, STANDARD[0]) > 2 * min_dcf(roc_of(scores, target), STANDARD[0])


@pytest.mark.parametrize("separation", [0.5, 2.0, 4.0])
def test_cllr_of_calibrated_gaussians_is_the_integral(separation: float) -> None:
    mean, deviation = separation**2 / 2, separation

    def integrand(s: float) -> float:
        return float(norm.pdf(s, mean, deviation) * np.logaddexp(0, -s) / np.log(2))

    # By symmetry both classes lose as much.
    expected = quad(integrand, mean - 10 * deviation, mean + 10 * deviation)[0]
    scores, target = gaussian(separation)
    assert cllr(scores, target) == pytest.approx(expected, abs=3e-3)
    assert min_cllr(rocch(roc_of(scores, target))) == pytest.approx(expected, abs=3e-3)
    assert cllr(scores + 2, target) > expected + 0.01
    assert min_cllr(rocch(roc_of(scores + 2, target))) == pytest.approx(expected, abs=3e-3)


@RELAXED
@given(TIED)
def test_min_cllr_is_the_cllr_of_pav_calibrated_scores(trials: Trials) -> None:
    scores, target = arrays(trials)
    prior = target.mean()
    posterior = IsotonicRegression().fit_transform(scores, target.astype(float))
    with np.errstate(divide="ignore"):
        ratios = np.log(posterior) - np.log1p(-posterior) - np.log(prior / (1 - prior))
    losses = np.logaddexp(0, -ratios[target]).mean() + np.logaddexp(0, ratios[~target]).mean()
    least = min_cllr(rocch(roc_of(scores, target)))
    assert least == pytest.approx(losses / 2 / np.log(2), abs=1e-9)
    assert least <= min(1, cllr(scores, target)) + 1e-9


def test_perfect_and_useless_scores() -> None:
    target = np.array([True, True, False, False])
    perfect, useless = roc_of(np.array([3.0, 2, 1, 0]), target), roc_of(np.zeros(4), target)
    assert min_dcf(perfect, STANDARD[0]) == min_cllr(rocch(perfect)) == 0
    assert f"{min_cllr(rocch(perfect)):.3f}" == "0.000"  # not -0.000
    assert min_dcf(useless, STANDARD[0]) == min_cllr(rocch(useless)) == cllr(np.zeros(4), target) == 1
    assert cllr(np.array([1e4, 1e4, -1e4, -1e4]), target) == 0  # without overflow
    assert min_dcf_threshold(useless, OperatingPoint(p_target=0.99)) == -np.inf


def test_what_cannot_be_measured_is_an_error() -> None:
    for measure in (cllr, lambda scores, target: act_dcf(scores, target, STANDARD[0])):
        with pytest.raises(TrialError, match="one class"):
            measure(np.zeros(2), np.ones(2, dtype=bool))
        with pytest.raises(TrialError, match="NaN"):
            measure(np.array([0, np.nan]), np.array([True, False]))


def test_points_name_their_figures() -> None:
    assert [point.name for point in STANDARD] == ["0.01", "0.05"]
    assert OperatingPoint(p_target=0.01, c_miss=10).name == "0.01_10_1"
    assert OperatingPoint(p_target=0.5, c_miss=1.5, c_fa=1).name == "0.5_1.5_1"
