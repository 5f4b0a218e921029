"""Operating points of a verification system, from scores in which higher means more alike."""

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import ndtri

from pipeline.errors import TrialError

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

_LEAST = 1e-7  # a rate of 0 or 1 lies at infinity on a DET plot; this is beyond what any list can measure


@dataclass(frozen=True)
class Roc:
    """Operating points from accepting everything to rejecting everything.

    Every other threshold lies on a straight line between two of them, along which only targets or only non-targets come
    to be rejected: no cost and no error rate of interest is lower there.
    """

    miss: Floats
    """Share of targets rejected [P], rising from 0 to 1."""
    false_alarm: Floats
    """Share of non-targets accepted [P], falling from 1 to 0."""
    threshold: Floats
    """Scores above it are accepted [P]; the first is minus infinity."""

    def at(self, index: Index) -> "Roc":
        """Return some of the points."""
        return Roc(self.miss[index], self.false_alarm[index], self.threshold[index])


def check_trials(scores: Scores, target: Mask) -> None:
    """Check that scores [M] and labels [M] can be measured.

    Raises:
        TrialError: no trials, one class only, or scores that are not finite.
    """
    if len(scores) != len(target):
        raise TrialError(f"{len(scores):,} scores of {len(target):,} trials; there must be one each.")
    if len(target) == 0 or target.all() or not target.any():
        raise TrialError(f"{len(target):,} trials of one class or none; error rates need targets and non-targets.")
    if not np.isfinite(scores).all():
        raise TrialError("scores hold NaN or infinite values; the embeddings they come from are damaged.")


def roc_of(scores: Scores, target: Mask) -> Roc:
    """Return the ROC of scores [M], target [M].

    Raises:
        TrialError: see `check_trials`.
    """
    check_trials(scores, target)
    missed, rejected, threshold = corners(np.sort(scores[target]), np.sort(scores[~target]))
    return Roc(missed / missed[-1], (rejected[-1] - rejected) / rejected[-1], threshold)


def corners(targets: Scores, nontargets: Scores) -> tuple[Index, Index, Floats]:
    """Return how many targets and how many non-targets each operating point rejects [P], and its threshold.

    The points are those just below and at every target score, and both ends.

    Args:
        targets: sorted scores of the targets [T].
        nontargets: sorted scores of the non-targets [N].
    """
    ends = np.append(np.flatnonzero(targets[1:] != targets[:-1]), len(targets) - 1)  # last of each run of ties
    values = targets[ends]
    missed = np.repeat(np.concatenate([[0], ends + 1]), 2)
    rejected = np.empty_like(missed)
    rejected[0], rejected[-1] = 0, len(nontargets)
    rejected[1:-1:2] = np.searchsorted(nontargets, values, side="left")
    rejected[2:-1:2] = np.searchsorted(nontargets, values, side="right")
    threshold = np.empty(len(missed))
    threshold[0], threshold[2::2] = -np.inf, values
    threshold[1::2] = nontargets[rejected[1::2] - 1]
    # Without non-targets below a target score, the point there is the one before, and its threshold not the one above.
    differ = np.append(True, (missed[1:] != missed[:-1]) | (rejected[1:] != rejected[:-1]))
    return missed[differ], rejected[differ], threshold[differ]


def rocch(roc: Roc) -> Roc:
    """Return the vertices of the ROC's convex hull (Brümmer, "Measuring, refining and calibrating", 2010).

    They are where the blocks of the pool-adjacent-violators (PAV) regression of the labels on the scores meet: each
    block is a segment, its share of targets the segment's slope.
    """
    targets, nontargets = np.diff(roc.miss), -np.diff(roc.false_alarm)
    weight = targets + nontargets
    blocks = isotonic_regression(targets / weight, weights=weight).blocks
    return roc.at(np.asarray(blocks, dtype=np.intp))


@overload
def eer(roc: Roc) -> float: ...


@overload
def eer(roc: Scores, labels: NDArray[Any]) -> float: ...


def eer(roc: Roc | Scores, labels: NDArray[Any] | None = None) -> float:
    """Return the equal error rate in 0..1, by linear interpolation between the two points around the crossing.

    Of `rocch(roc)` it is the EER of the convex hull: the highest that choosing a threshold at any prior leads to.

    Args:
        roc: operating points; or scores [M], higher meaning more alike.
        labels: of scores, whether each is of one speaker [M]: 1 or 0, true or false.

    Raises:
        TrialError: scores and labels cannot be measured, see `check_trials`, or labels are something else.
    """
    if not isinstance(roc, Roc):
        roc = roc_of(np.asarray(roc), _mask(labels))
    after = _crossing(roc)
    before = after - 1
    gap = roc.miss[before : after + 1] - roc.false_alarm[before : after + 1]
    share = gap[0] / (gap[0] - gap[1])
    return float(roc.miss[before] + share * (roc.miss[after] - roc.miss[before]))


def _mask(labels: NDArray[Any] | None) -> Mask:
    given = np.asarray(labels)
    if given.ndim != 1 or not np.isin(given, (0, 1)).all():
        raise TrialError("labels are not a row of 1 (same speaker) and 0 (another), one for each score.")
    return given.astype(bool)


def eer_threshold(roc: Roc, scores: Scores, target: Mask) -> float:
    """Return the threshold at which both error rates of scores [M], target [M] are nearest to each other.

    Their `roc` says between which scores it lies, but may have none of the non-targets on the way.
    """
    after = _crossing(roc)
    before = after - 1
    near = (scores > roc.threshold[before]) & (scores <= roc.threshold[after])
    thresholds = np.unique(scores[near])
    misses = np.searchsorted(np.sort(scores[near & target]), thresholds, side="right")
    rejections = np.searchsorted(np.sort(scores[near & ~target]), thresholds, side="right")
    targets = int(target.sum())
    gap = roc.miss[before] - roc.false_alarm[before]
    gaps = np.abs(gap + misses / targets + rejections / (len(target) - targets))
    best = int(np.argmin(gaps))
    return float(thresholds[best] if gaps[best] <= abs(gap) else roc.threshold[before])


def _crossing(roc: Roc) -> int:
    return int(np.argmax(roc.miss >= roc.false_alarm))


def false_alarm_at(roc: Roc, miss: float) -> float:
    """Return the least false alarm rate of a threshold that misses no more than that share of targets."""
    return float(roc.false_alarm[np.searchsorted(roc.miss, miss, side="right") - 1])


def miss_at(roc: Roc, false_alarm: float) -> float:
    """Return the least miss rate of a threshold that accepts no more than that share of non-targets."""
    return float(roc.miss[int(np.argmax(roc.false_alarm <= false_alarm))])


def probit(rate: Floats) -> Floats:
    """Return where rates lie on the axes of a DET plot (Martin et al., 1997): the normal distribution's quantiles."""
    quantiles: Floats = ndtri(np.clip(rate, _LEAST, 1 - _LEAST))
    return quantiles


def thin(roc: Roc, count: int = 400) -> Roc:
    """Return at most about `count` points, spread evenly along both axes of a DET plot, with both ends."""
    ticks = np.linspace(0, 1, count // 2)
    chosen = [np.array([0, len(roc.miss) - 1])]
    for axis in (probit(roc.miss), -probit(roc.false_alarm)):
        wanted = np.searchsorted(axis, axis[0] + ticks * (axis[-1] - axis[0]))
        chosen.append(np.minimum(wanted, len(axis) - 1))
    return roc.at(np.unique(np.concatenate(chosen)))
