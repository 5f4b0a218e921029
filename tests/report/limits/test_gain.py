"""Gain by gap against scikit-learn's ROC, and where it changes its sign against lines that are known."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from pipeline.data.trials.table import make_all_pairs
from pipeline.metrics import compare
from pipeline.report.limits.gain import find_sign_changes, measure_by_gap, quantile_edges


def sk_eer(scores: np.ndarray, target: np.ndarray) -> float:
    """EER in percent, where the straight lines between the points of scikit-learn's ROC cross the diagonal."""
    false_alarm, hit, _ = roc_curve(target, scores, drop_intermediate=False)
    gap = 1 - hit - false_alarm
    return 100 * float(np.interp(0, gap[::-1], false_alarm[::-1]))


def trials_of(count: int = 80) -> tuple[np.ndarray, ...]:
    speakers = [f"s{row // 4}" for row in range(count)]
    pairs = make_all_pairs(speakers, 10_000, 0)
    numbers = np.arange(count) // 4
    rng = np.random.default_rng(3)
    gaps = np.where(np.arange(count) % 5, rng.uniform(0.1, 1.0, count), 0)[pairs.test]
    raw = rng.standard_normal(len(pairs)) + 2 * pairs.target - gaps * pairs.target
    seed = rng.standard_normal(len(pairs)) + 1.5 * pairs.target
    return gaps, raw, seed, pairs.target, numbers[pairs.enrol], numbers[pairs.test]


def test_every_bin_is_measured_as_if_it_were_alone() -> None:
    gaps, raw, seed, target, *who = trials_of()
    edges = quantile_edges(gaps[gaps > 0], 3)
    bins, drawn = measure_by_gap(gaps, edges, raw, seed, target, (who[0], who[1]), 60, 0)
    assert [(one.low, one.high) for one in bins] == [(0, 0), *pairwise(edges)]
    members = [gaps == 0, *((gaps >= low) & (gaps < high) for low, high in pairwise(edges))]
    members[-1] |= gaps == edges[-1]
    assert sum(one.targets + one.nontargets for one in bins) == len(gaps)
    for place, (one, chosen) in enumerate(zip(bins, members, strict=True)):
        assert one.raw[0] == pytest.approx(sk_eer(raw[chosen], target[chosen]))
        assert one.seed[0] == pytest.approx(sk_eer(seed[chosen], target[chosen]))
        assert one.gain[0] == pytest.approx(one.raw[0] - one.seed[0])
        assert one.mean == pytest.approx(gaps[chosen].mean())
        assert one.targets == target[chosen].sum()
        alone = compare(
            {"raw": raw[chosen], "seed": seed[chosen]}, target[chosen], (who[0][chosen], who[1][chosen]), (), 60, 0
        )[0]
        # The same draws: those of all speakers, with nothing lost to the numbering of trials.
        assert one.raw[1:] == pytest.approx(alone["raw"]["eer_ci"])
        assert one.gain[1:] == pytest.approx([-end for end in reversed(alone["seed"]["eer_difference_ci"])])
        assert one.p_value == pytest.approx(alone["seed"]["p_value"])
        assert drawn.shape == (60, len(bins))
        assert np.quantile(drawn[:, place], 0.025) == pytest.approx(one.gain[1])


def test_bins_of_one_class_are_left_out() -> None:
    gaps, raw, seed, target, *who = trials_of()
    far = np.where(target, gaps, 5.0)
    bins, drawn = measure_by_gap(far, np.array([0.0, 2.0, 6.0]), raw, seed, target, (who[0], who[1]), 5, 0)
    assert bins == []
    assert drawn.shape == (5, 0)


def test_bins_hold_equally_many() -> None:
    values = np.random.default_rng(0).permutation(np.arange(100.0))
    assert np.histogram(values, quantile_edges(values, 4))[0].tolist() == [25, 25, 25, 25]
    assert quantile_edges(np.array([1.0, 1.0, 1.0, 2.0]), 2).tolist() == [1.0, 2.0]


def test_a_line_turns_where_it_crosses_nothing() -> None:
    distances = [0.0, 1.0, 2.0, 3.0]
    shifts = np.linspace(-0.2, 0.2, 41)
    starts, stops = find_sign_changes(
        distances, [-1.0, 1.0, 1.0, -3.0], np.array([[-1 + s, 1 + s, 1 + s, -3 + s] for s in shifts])
    )
    assert starts.value == pytest.approx(0.5)
    assert stops.value == pytest.approx(2.25)
    assert (starts.low, starts.high) == pytest.approx((0.405, 0.595), abs=0.006)  # (1 - s) / 2
    assert (stops.low, stops.high) == pytest.approx((2.2025, 2.2975), abs=0.003)  # 2 + (1 + s) / 4
    assert starts.share == stops.share == 1


def test_a_gain_that_never_ends_has_no_turn() -> None:
    starts, stops = find_sign_changes([0.0, 1.0], [1.0, 2.0], np.array([[1.0, 2.0]] * 37 + [[1.0, -1.0]] * 3))
    assert (starts.value, starts.low, starts.high, starts.share) == (-np.inf, -np.inf, -np.inf, 0)
    assert (stops.value, stops.low, stops.share) == (np.inf, 0.5, 3 / 40)
    starts, stops = find_sign_changes([0.0, 1.0], [-1.0, 0.0], np.array([[-1.0, -1.0]]))
    assert (starts.value, stops.value) == (np.inf, -np.inf)
