"""Operating points of a verification system, computed from scores; higher scores mean more alike."""

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import ndtri

from pipeline.errors import TrialError
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray, IndexArray

MAX_SCORE = 1e30
"""The largest credible size of a score; sums and squares of larger ones overflow."""
_MIN_RATE = 1e-7  # rates of 0 and 1 lie at infinity on a DET plot; no trial list can measure a rate this low


@dataclass(frozen=True)
class Roc:
    """Operating points from accepting everything to rejecting everything.

    Every other threshold lies on a straight line between two of these points. Along that line, only targets or only
    non-targets are rejected one after another, so no cost and no error rate of interest is lower there.
    """

    miss: Float64Array
    """Share of targets rejected [P], rising from 0 to 1."""
    false_alarm: Float64Array
    """Share of non-targets accepted [P], falling from 1 to 0."""
    threshold: Float64Array
    """Thresholds [P] above which scores are accepted; the first is minus infinity."""

    def select(self, index: IndexArray) -> "Roc":
        """Return the points at some indices."""
        return Roc(self.miss[index], self.false_alarm[index], self.threshold[index])


def check_trials(scores: FloatArray, target: BoolArray) -> None:
    """Check that error rates can be measured on scores [M] and labels [M].

    Raises:
        TrialError: there are no trials or only one class of them, or scores are not finite or beyond `MAX_SCORE`.
    """
    if len(scores) != len(target):
        raise TrialError(f"{len(scores):,} scores of {len(target):,} trials. Give one score for each trial.")
    if len(target) == 0 or target.all() or not target.any():
        raise TrialError(f"{len(target):,} trials of one class or none; error rates need targets and non-targets.")
    bad = ~np.isfinite(scores)
    if bad.any():
        raise TrialError(
            f"{int(bad.sum()):,} of {len(scores):,} scores are NaN or infinite, first: score {int(np.argmax(bad))}."
            " Check the embeddings that they were computed from."
        )
    if (largest := max(-float(scores.min()), float(scores.max()))) > MAX_SCORE:
        raise TrialError(f"scores reach {largest:.3g}; those beyond {MAX_SCORE:g} cannot be measured. Correct them.")


def roc_of(scores: FloatArray, target: BoolArray) -> Roc:
    """Return the ROC of scores [M], target [M].

    Raises:
        TrialError: see `check_trials`.
    """
    check_trials(scores, target)
    missed, rejected, threshold = count_rejections(np.sort(scores[target]), np.sort(scores[~target]))
    return Roc(missed / missed[-1], (rejected[-1] - rejected) / rejected[-1], threshold)


def count_rejections(targets: FloatArray, nontargets: FloatArray) -> tuple[IndexArray, IndexArray, Float64Array]:
    """Return the numbers of targets and of non-targets that each operating point rejects [P], and its threshold.

    The points are just below and at every target score, and at both ends.

    Args:
        targets: sorted scores of the targets [T].
        nontargets: sorted scores of the non-targets [N].
    """
    ends = np.append(np.flatnonzero(targets[1:] != targets[:-1]), len(targets) - 1)  # the last of each run of ties
    values = targets[ends]
    missed = np.repeat(np.concatenate([[0], ends + 1]), 2)
    rejected = np.empty_like(missed)
    rejected[0], rejected[-1] = 0, len(nontargets)
    rejected[1:-1:2] = np.searchsorted(nontargets, values, side="left")
    rejected[2:-1:2] = np.searchsorted(nontargets, values, side="right")
    threshold = np.empty(len(missed))
    threshold[0], threshold[2::2] = -np.inf, values
    threshold[1::2] = nontargets[rejected[1::2] - 1]
    # Without non-targets just below a target score, the point there repeats the previous one: keep the first of both.
    differs = np.append(True, (missed[1:] != missed[:-1]) | (rejected[1:] != rejected[:-1]))
    return missed[differs], rejected[differs], threshold[differs]


def rocch(roc: Roc) -> Roc:
    """Return the vertices of the ROC's convex hull (Brümmer, "Measuring, refining and calibrating", 2010).

    The blocks of the pool-adjacent-violators (PAV) regression of the labels on the scores meet at these vertices: each
    block is a segment of the hull, and its share of targets is the slope of that segment.
    """
    targets, nontargets = np.diff(roc.miss), -np.diff(roc.false_alarm)
    weight = targets + nontargets
    blocks = isotonic_regression(targets / weight, weights=weight).blocks
    return roc.select(np.asarray(blocks, dtype=np.intp))


@overload
def eer(roc: Roc) -> float: ...


@overload
def eer(roc: FloatArray, labels: NDArray[Any]) -> float: ...


def eer(roc: Roc | FloatArray, labels: NDArray[Any] | None = None) -> float:
    """Return the equal error rate in 0..1, by linear interpolation between the two points around the crossing.

    The result for `rocch(roc)` is the EER of the convex hull: the highest error rate over all priors if the threshold
    is optimal for the prior.

    Args:
        roc: operating points; or scores [M], higher meaning more alike.
        labels: labels of the scores [M]: 1 or true if both sides are the same speaker, else 0 or false.

    Raises:
        TrialError: scores and labels cannot be measured, see `check_trials`, or labels are not 0 and 1.
    """
    if not isinstance(roc, Roc):
        roc = roc_of(np.asarray(roc), _to_mask(labels))
    after = _crossing(roc)
    before = after - 1
    gap = roc.miss[before : after + 1] - roc.false_alarm[before : after + 1]
    share = gap[0] / (gap[0] - gap[1])
    return float(roc.miss[before] + share * (roc.miss[after] - roc.miss[before]))


def _to_mask(labels: NDArray[Any] | None) -> BoolArray:
    values = np.asarray(labels)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise TrialError("labels must be one-dimensional: 1 (same speaker) or 0 (different speakers) for each score.")
    return values.astype(bool)


def eer_threshold(roc: Roc, scores: FloatArray, target: BoolArray) -> float:
    """Return the threshold at which the two error rates of scores [M], target [M] are closest to each other.

    Their `roc` bounds this threshold from both sides, but may lack the non-targets between these bounds.
    """
    after = _crossing(roc)
    before = after - 1
    between = (scores > roc.threshold[before]) & (scores <= roc.threshold[after])
    thresholds = np.unique(scores[between])
    misses = np.searchsorted(np.sort(scores[between & target]), thresholds, side="right")
    rejections = np.searchsorted(np.sort(scores[between & ~target]), thresholds, side="right")
    targets = int(target.sum())
    gap = roc.miss[before] - roc.false_alarm[before]
    gaps = np.abs(gap + misses / targets + rejections / (len(target) - targets))
    best = int(np.argmin(gaps))
    return float(thresholds[best] if gaps[best] <= abs(gap) else roc.threshold[before])


def _crossing(roc: Roc) -> int:
    """Return the index of the first point that misses at least as often as it raises false alarms."""
    return int(np.argmax(roc.miss >= roc.false_alarm))


def false_alarm_at(roc: Roc, miss: float) -> float:
    """Return the lowest false-alarm rate among thresholds with at most this miss rate."""
    return float(roc.false_alarm[np.searchsorted(roc.miss, miss, side="right") - 1])


def miss_at(roc: Roc, false_alarm: float) -> float:
    """Return the lowest miss rate among thresholds with at most this false-alarm rate."""
    return float(roc.miss[int(np.argmax(roc.false_alarm <= false_alarm))])


def probit(rate: Float64Array) -> Float64Array:
    """Return the normal quantiles of rates, their coordinates on a DET plot (Martin et al., 1997)."""
    quantiles: Float64Array = ndtri(np.clip(rate, _MIN_RATE, 1 - _MIN_RATE))
    return quantiles


def thin(roc: Roc, count: int = 400) -> Roc:
    """Return at most about `count` points, both ends among them, spread evenly along both axes of a DET plot."""
    ticks = np.linspace(0, 1, count // 2)
    chosen = [np.array([0, len(roc.miss) - 1])]
    for axis in (probit(roc.miss), -probit(roc.false_alarm)):
        wanted = np.searchsorted(axis, axis[0] + ticks * (axis[-1] - axis[0]))
        chosen.append(np.minimum(wanted, len(axis) - 1))
    return roc.select(np.unique(np.concatenate(chosen)))
