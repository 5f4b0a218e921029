"""Bootstrap confidence intervals over speakers, also for differences between systems on the same trials.

Trials of one speaker are not independent, so the bootstrap draws speakers instead of trials. If a speaker is drawn m
times, each of its target trials counts m times, and each of its non-target trials with a speaker drawn n times counts
m n times.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.roc import Roc, check_trials, count_rejections
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray, IndexArray, IntArray


@dataclass(frozen=True)
class Ranking:
    """Trials that are sorted once, so that the error rates of each weighting cost only a cumulative sum."""

    targets: IndexArray
    """Target trials [T], by rising score."""
    nontargets: IndexArray
    """Non-target trials [N], by rising score."""
    missed: IndexArray
    """Number of `targets` that each operating point rejects [P], from 0 to T."""
    rejected: IndexArray
    """Number of `nontargets` that each operating point rejects [P], from 0 to N."""
    threshold: Float64Array
    """Threshold of each operating point [P]."""

    @classmethod
    def from_scores(cls, scores: FloatArray, target: BoolArray) -> "Ranking":
        """Rank scores [M], target [M].

        Raises:
            TrialError: see `check_trials`.
        """
        check_trials(scores, target)
        targets, nontargets = np.flatnonzero(target), np.flatnonzero(~target)
        targets = targets[np.argsort(scores[targets])]
        nontargets = nontargets[np.argsort(scores[nontargets])]
        return cls(targets, nontargets, *count_rejections(scores[targets], scores[nontargets]))

    def roc(self, targets: IntArray, nontargets: IntArray) -> Roc:
        """Return the ROC of weighted trials.

        Args:
            targets: cumulative weights of `self.targets`, starting at 0 [T + 1].
            nontargets: cumulative weights of `self.nontargets`, starting at 0 [N + 1].
        """
        accepted = nontargets[-1] - nontargets[self.rejected]
        return Roc(targets[self.missed] / targets[-1], accepted / nontargets[-1], self.threshold)


def replicates(
    rankings: Sequence[Ranking],
    enrol_speaker: IntArray,
    test_speaker: IntArray,
    statistics: Sequence[Callable[[Roc], float]],
    resamples: int,
    seed: int,
) -> Float64Array:
    """Return statistics [resamples, systems, statistics] of speakers drawn with replacement.

    All systems are measured on the same draws. A draw without targets or without non-targets is repeated.
    Rankings are of the same trials, by the scores of each system. `enrol_speaker` and `test_speaker` are the speaker
    numbers [M] of both sides. Statistics are functions of the ROC, such as `eer`.
    """
    speakers = int(max(enrol_speaker.max(), test_speaker.max())) + 1
    # Target trials count as often as their one speaker is drawn, so their other side is a dummy that is drawn once.
    other = np.where(enrol_speaker == test_speaker, speakers, test_speaker)
    classes = [
        [_ClassWeights.create(enrol_speaker[trials], other[trials]) for trials in (ranking.targets, ranking.nontargets)]
        for ranking in rankings
    ]
    rng = np.random.default_rng(seed)
    values = np.empty((resamples, len(rankings), len(statistics)))
    done = 0
    while done < resamples:
        draws = np.bincount(rng.integers(speakers, size=speakers), minlength=speakers + 1).astype(np.int32)
        draws[-1] = 1
        for system, (ranking, (targets, nontargets)) in enumerate(zip(rankings, classes, strict=True)):
            target_sums, nontarget_sums = targets.accumulate(draws), nontargets.accumulate(draws)
            if target_sums[-1] == 0 or nontarget_sums[-1] == 0:
                break  # the other systems have the same trials
            roc = ranking.roc(target_sums, nontarget_sums)
            values[done, system] = [statistic(roc) for statistic in statistics]
        else:
            done += 1
    return values


def interval(values: Float64Array, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of replicates [R] of a statistic."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(differences: Float64Array) -> float:
    """Return the two-sided p-value of no difference, from replicates [R] of the difference.

    It is twice the smaller share of replicates on either side of 0. Both counts are raised by 1, so that it is never 0
    (Davison & Hinkley, 1997, sec. 4.2).
    """
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(differences))))


@dataclass(frozen=True)
class _ClassWeights:
    """Weights of ranked targets or non-targets [K] by their speakers; reusing buffers is faster than allocating."""

    one: IndexArray
    other: IndexArray
    factor: NDArray[np.int32]
    weight: NDArray[np.int32]
    total: IntArray

    @classmethod
    def create(cls, one: IntArray, other: IntArray) -> "_ClassWeights":
        count = len(one)
        buffers = np.empty(count, np.int32), np.empty(count, np.int32), np.zeros(count + 1, np.int64)
        return cls(one.astype(np.intp), other.astype(np.intp), *buffers)

    def accumulate(self, draws: NDArray[np.int32]) -> IntArray:
        """Return cumulative weights [K + 1] for a draw [speakers + 1]; the next call overwrites them."""
        draws.take(self.one, out=self.weight, mode="clip")  # mode="raise" would copy `out` once more
        draws.take(self.other, out=self.factor, mode="clip")
        np.multiply(self.weight, self.factor, out=self.weight)
        np.cumsum(self.weight, out=self.total[1:])
        return self.total
