"""Confidence intervals by drawing speakers anew, also of differences between systems on the same trials.

Trials of one speaker are not independent, so speakers are drawn, not trials. A speaker drawn m times counts its target
trials m times, and its non-target trials with a speaker drawn n times m n times.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.roc import Floats, Index, Mask, Roc, Scores, check_trials, corners


@dataclass(frozen=True)
class Ranking:
    """Trials sorted once, so that error rates under many weightings of them cost a cumulative sum each."""

    targets: Index
    """Target trials [T], by rising score."""
    nontargets: Index
    """Non-target trials [N], by rising score."""
    missed: Index
    """How many of `targets` each operating point rejects [P], from 0 to T."""
    rejected: Index
    """How many of `nontargets` each operating point rejects [P], from 0 to N."""
    threshold: Floats
    """Of each operating point [P]."""

    @classmethod
    def of(cls, scores: Scores, target: Mask) -> "Ranking":
        """Rank scores [M], target [M].

        Raises:
            TrialError: see `check_trials`.
        """
        check_trials(scores, target)
        targets, nontargets = np.flatnonzero(target), np.flatnonzero(~target)
        targets = targets[np.argsort(scores[targets])]
        nontargets = nontargets[np.argsort(scores[nontargets])]
        return cls(targets, nontargets, *corners(scores[targets], scores[nontargets]))

    def roc(self, targets: NDArray[np.int64], nontargets: NDArray[np.int64]) -> Roc:
        """Return the ROC of weighted trials.

        Args:
            targets: sums of the weights of the first 0 to T of `self.targets` [T + 1].
            nontargets: sums of the weights of the first 0 to N of `self.nontargets` [N + 1].
        """
        accepted = nontargets[-1] - nontargets[self.rejected]
        return Roc(targets[self.missed] / targets[-1], accepted / nontargets[-1], self.threshold)


def replicates(
    rankings: Sequence[Ranking],
    enrol_speaker: NDArray[np.int64],
    test_speaker: NDArray[np.int64],
    statistics: Sequence[Callable[[Roc], float]],
    resamples: int,
    seed: int,
) -> Floats:
    """Return statistics [resamples, systems, statistics] of draws of the speakers with replacement.

    All systems are measured on the same draws. A draw that leaves no targets or no non-targets is made anew.

    Args:
        rankings: of the same trials, by the scores of each system.
        enrol_speaker: speaker numbers [M] of the enrolment side.
        test_speaker: speaker numbers [M] of the test side.
        statistics: for example `eer`.
        resamples: how many draws.
        seed: of the draws.
    """
    speakers = int(max(enrol_speaker.max(), test_speaker.max())) + 1
    # A trial of one speaker counts as often as that speaker is drawn: its other side is nobody, who is drawn once.
    other = np.where(enrol_speaker == test_speaker, speakers, test_speaker)
    classes = [
        [_Class.of(enrol_speaker[trials], other[trials]) for trials in (ranking.targets, ranking.nontargets)]
        for ranking in rankings
    ]
    rng = np.random.default_rng(seed)
    values = np.empty((resamples, len(rankings), len(statistics)))
    done = 0
    while done < resamples:
        times = np.bincount(rng.integers(speakers, size=speakers), minlength=speakers + 1).astype(np.int32)
        times[-1] = 1
        for system, (ranking, (targets, nontargets)) in enumerate(zip(rankings, classes, strict=True)):
            hits, others = targets.sums(times), nontargets.sums(times)
            if hits[-1] == 0 or others[-1] == 0:
                break  # for the other systems as well: their trials are the same
            roc = ranking.roc(hits, others)
            values[done, system] = [statistic(roc) for statistic in statistics]
        else:
            done += 1
    return values


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of replicates [R] of a statistic."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(differences: Floats) -> float:
    """Return the two-sided p of no difference, from its replicates [R]: about the level whose interval ends at 0.

    It is twice the smaller share of replicates on either side of 0, with 1 added to both counts so that it is never 0
    (Davison & Hinkley, 1997, sec. 4.2).
    """
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(differences))))


@dataclass(frozen=True)
class _Class:
    """The speakers of ranked targets or non-targets [K]; buffers are kept, as fresh pages cost more than the sums."""

    one: Index
    other: Index
    factor: NDArray[np.int32]
    weight: NDArray[np.int32]
    total: NDArray[np.int64]

    @classmethod
    def of(cls, one: NDArray[np.int64], other: NDArray[np.int64]) -> "_Class":
        count = len(one)
        buffers = np.empty(count, np.int32), np.empty(count, np.int32), np.zeros(count + 1, np.int64)
        return cls(one.astype(np.intp), other.astype(np.intp), *buffers)

    def sums(self, times: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return cumulative weights [K + 1] for a draw [speakers + 1], until the next call."""
        times.take(self.one, out=self.weight, mode="clip")  # NumPy buffers `out` in the mode that checks
        times.take(self.other, out=self.factor, mode="clip")
        np.multiply(self.weight, self.factor, out=self.weight)
        np.cumsum(self.weight, out=self.total[1:])
        return self.total
