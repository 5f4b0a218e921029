"""Error rates of speaker verification, from scores in which higher means more alike."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrialError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Roc:
    """Operating points from accepting everything to rejecting everything, one more than there are different scores."""

    miss: Floats
    """Share of targets rejected [P], rising from 0 to 1."""
    false_alarm: Floats
    """Share of non-targets accepted [P], falling from 1 to 0."""
    threshold: Floats
    """Scores above it are accepted [P]; the first is minus infinity."""


class Ranking:
    """Scores sorted once, so that error rates under many weightings of the trials cost a cumulative sum each."""

    def __init__(self, scores: NDArray[np.floating], target: NDArray[np.bool_]) -> None:
        """Args: scores [M], finite; target [M].

        Raises:
            TrialError: no trials, one class only, or scores that are not finite.
        """
        if len(target) == 0 or target.all() or not target.any():
            raise TrialError(f"{len(target)} trials of one class or none; error rates need targets and non-targets.")
        if not np.isfinite(scores).all():
            raise TrialError("scores hold NaN or infinite values; the embeddings they come from are damaged.")
        self.order = np.argsort(scores, kind="stable")
        ranked = scores[self.order]
        self.ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # last of each run of ties
        self.target = target[self.order]
        self.thresholds = np.concatenate([[-np.inf], ranked[self.ends].astype(np.float64)])

    def roc(self, weights: Floats | None = None) -> Roc:
        """Return the ROC, each trial counted `weights` [M] times (once if not given)."""
        ranked = np.ones(len(self.target)) if weights is None else weights[self.order]
        hits = np.cumsum(np.where(self.target, ranked, 0.0))
        rejections = np.cumsum(np.where(self.target, 0.0, ranked))
        miss = np.concatenate([[0.0], hits[self.ends] / hits[-1]])
        false_alarm = np.concatenate([[1.0], 1 - rejections[self.ends] / rejections[-1]])
        return Roc(miss, np.clip(false_alarm, 0.0, 1.0), self.thresholds)


def eer(roc: Roc) -> float:
    """Return the equal error rate in 0..1, by linear interpolation between the two points around the crossing."""
    gap = roc.miss - roc.false_alarm
    after = int(np.argmax(gap >= 0))
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    return float(roc.miss[before] + share * (roc.miss[after] - roc.miss[before]))


def min_dcf(roc: Roc, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """Return the least normalised detection cost (NIST SRE): 1 is what deciding without looking costs."""
    cost = c_miss * p_target * roc.miss + c_fa * (1 - p_target) * roc.false_alarm
    return float(cost.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def speaker_bootstrap(
    ranking: Ranking,
    enrol_speaker: NDArray[np.int64],
    test_speaker: NDArray[np.int64],
    statistic: Callable[[Roc], float],
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic when speakers, not trials, are drawn anew with replacement.

    Trials of one speaker are not independent. A speaker drawn m times counts its target trials m times, and its
    non-target trials with a speaker drawn n times m n times.

    Args:
        ranking: the trials' scores.
        enrol_speaker: speaker numbers [M] of the enrolment side.
        test_speaker: speaker numbers [M] of the test side.
        statistic: for example `eer`.
        resamples: how many draws.
        seed: of the draws.
        level: coverage of the interval.
    """
    count = int(max(enrol_speaker.max(), test_speaker.max())) + 1
    rng = np.random.default_rng(seed)
    same = enrol_speaker == test_speaker
    values: list[float] = []
    while len(values) < resamples:
        times = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        weights = np.where(same, times[enrol_speaker], times[enrol_speaker] * times[test_speaker])
        ranked = weights[ranking.order]
        if ranked[ranking.target].any() and ranked[~ranking.target].any():
            values.append(statistic(ranking.roc(weights)))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def det_points(roc: Roc, count: int = 200) -> list[tuple[float, float]]:
    """Return (false alarm, miss) pairs for a DET curve, thinned to about `count` points evenly spaced in rank."""
    keep = np.unique(np.linspace(0, len(roc.miss) - 1, count).astype(int))
    return [(float(roc.false_alarm[index]), float(roc.miss[index])) for index in keep]
