from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pipeline.config.score import STANDARD
from pipeline.errors import TrialError
from pipeline.metrics import Ranking, eer, interval, min_dcf, p_value, replicates, roc_of
from tests.metrics.strategies import RELAXED, TIED, arrays

STATISTICS = [eer, *(partial(min_dcf, point=point) for point in STANDARD)]


def trials(speakers: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and both speakers of all pairs of utterances; some speakers are harder than others."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(speakers), each)
    left, right = (index.ravel() for index in np.meshgrid(np.arange(len(who)), np.arange(len(who))))
    left, right = left[left != right], right[left != right]
    target = who[left] == who[right]
    hardness = rng.normal(size=speakers)
    scores = np.round(rng.normal(size=len(left)) + 1.5 * target + hardness[who[left]], 1)  # with ties
    return scores, target, who[left], who[right]


def slow(
    systems: list[np.ndarray], target: np.ndarray, enrol: np.ndarray, test: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """The same draws, each trial repeated as often as it counts and measured afresh."""
    speakers = max(enrol.max(), test.max()) + 1
    rng = np.random.default_rng(seed)
    rows: list[list[list[float]]] = []
    while len(rows) < resamples:
        drawn = rng.integers(speakers, size=speakers).tolist()
        counts = [
            drawn.count(left) if left == right else drawn.count(left) * drawn.count(right)
            for left, right in zip(enrol, test, strict=True)
        ]
        chosen = np.repeat(np.arange(len(target)), counts)
        if 0 < target[chosen].sum() < len(chosen):
            rocs = [roc_of(scores[chosen], target[chosen]) for scores in systems]
            rows.append([[statistic(roc) for statistic in STATISTICS] for roc in rocs])
    return np.array(rows)


@settings(RELAXED, max_examples=20)
@given(st.integers(2, 6), st.integers(2, 4), st.integers(0, 1000))
def test_replicates_are_those_of_the_plain_bootstrap(speakers: int, each: int, seed: int) -> None:
    scores, target, enrol, test = trials(speakers, each, seed)
    other = np.round(scores + np.random.default_rng(seed).normal(size=len(scores)), 1)
    rankings = [Ranking.from_scores(scores, target), Ranking.from_scores(other, target)]
    fast = replicates(rankings, enrol, test, STATISTICS, 15, seed)
    np.testing.assert_allclose(fast, slow([scores, other], target, enrol, test, 15, seed), rtol=0, atol=1e-12)


def test_speakers_may_be_on_one_side_only() -> None:
    scores, target, enrol, test = trials(8, 3, 1)
    kept = (enrol < 4) | (enrol == test)  # enrolled: the first four; the others only against themselves
    scores, target, enrol, test = scores[kept], target[kept], enrol[kept], test[kept]
    fast = replicates([Ranking.from_scores(scores, target)], enrol, test, STATISTICS, 20, 0)
    np.testing.assert_allclose(fast, slow([scores], target, enrol, test, 20, 0), rtol=0, atol=1e-12)


@RELAXED
@given(TIED, st.data())
def test_a_weight_counts_a_trial_that_many_times(drawn: list[tuple[int, bool]], data: st.DataObject) -> None:
    scores, target = arrays(drawn)
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores))))
    repeated = np.repeat(np.arange(len(scores)), weights)
    if not 0 < target[repeated].sum() < len(repeated):
        return
    ranking = Ranking.from_scores(scores, target)
    sums = [np.append(0, np.cumsum(weights[order])) for order in (ranking.targets, ranking.nontargets)]
    weighted, plain = ranking.roc(*sums), roc_of(scores[repeated], target[repeated])
    for statistic in STATISTICS:
        assert statistic(weighted) == pytest.approx(statistic(plain), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_seeded_and_holds_the_estimate(seed: int) -> None:
    scores, target, enrol, test = trials(12, 4, seed)
    ranking = Ranking.from_scores(scores, target)
    drawn = replicates([ranking], enrol, test, [eer], 100, seed)
    assert (drawn == replicates([ranking], enrol, test, [eer], 100, seed)).all()
    assert (drawn != replicates([ranking], enrol, test, [eer], 100, seed + 1)).any()
    low, high = interval(drawn[:, 0, 0])
    assert 0 <= low < eer(roc_of(scores, target)) < high <= 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # Targets are N(2, 1) about their speaker's own N(0, 1), non-targets N(0, 1): the rates meet where these are equal.
    truth = norm.cdf(-2 / (1 + np.sqrt(2)))
    hits, alone = 0, 0
    for seed in range(60):
        _, target, enrol, test = trials(30, 5, seed)
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=len(target)) + target * (2 + rng.normal(size=30)[enrol])
        ranking = Ranking.from_scores(scores, target)
        low, high = interval(replicates([ranking], enrol, test, [eer], 100, seed)[:, 0, 0])
        hits += low <= truth <= high
        each = np.arange(len(target))  # as if every trial were of speakers of its own
        low, high = interval(replicates([ranking], each, each, [eer], 100, seed)[:, 0, 0])
        alone += low <= truth <= high
    assert hits >= 50  # of 60
    assert alone <= 40


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    scores, target, enrol, test = trials(20, 3, 3)
    better = scores + 0.3 * target
    drawn = replicates(
        [Ranking.from_scores(scores, target), Ranking.from_scores(better, target)], enrol, test, [eer], 200, 0
    )[:, :, 0]
    paired = np.ptp(interval(drawn[:, 1] - drawn[:, 0]))
    assert paired < 0.7 * np.ptp(interval(drawn[:, 1] - np.roll(drawn[:, 0], 1)))
    assert p_value(drawn[:, 1] - drawn[:, 0]) < 0.02
    assert p_value(drawn[:, 0] - drawn[:, 0]) == 1


def test_p_is_twice_the_smaller_share_beyond_zero() -> None:
    differences = np.array([-1.0] * 9 + [1.0] * 190)
    assert p_value(differences) == p_value(-differences) == 2 * 10 / 200
    assert p_value(np.ones(199)) == 2 / 200
    assert p_value(np.array([-1.0, 1.0])) == 1


def test_what_cannot_be_ranked_is_an_error() -> None:
    with pytest.raises(TrialError, match="one class"):
        Ranking.from_scores(np.zeros(3), np.ones(3, dtype=bool))
    with pytest.raises(TrialError, match="NaN"):
        Ranking.from_scores(np.array([0, np.nan]), np.array([True, False]))
