"""Costs of decisions that are based on scores, and of their calibration."""

import numpy as np
from scipy.special import rel_entr

from pipeline.config.score import OperatingPoint
from pipeline.metrics.roc import Roc, check_trials
from pipeline.utils.array_types import BoolArray, FloatArray


def min_dcf(roc: Roc, point: OperatingPoint) -> float:
    """Return the minimum normalised detection cost (NIST SRE); deciding without looking at the score costs 1."""
    return _min_cost(roc, point)[1]


def min_dcf_threshold(roc: Roc, point: OperatingPoint) -> float:
    """Return the threshold of the minimum cost; minus infinity if accepting everything is cheapest."""
    return float(roc.threshold[_min_cost(roc, point)[0]])


def act_dcf(scores: FloatArray, target: BoolArray, point: OperatingPoint) -> float:
    """Return the normalised detection cost at the Bayes threshold; scores [M] are natural log-likelihood ratios."""
    check_trials(scores, target)
    accepted = scores > point.threshold
    miss, false_alarm = point.weights
    return float(miss * (1 - accepted[target].mean()) + false_alarm * accepted[~target].mean())


def _min_cost(roc: Roc, point: OperatingPoint) -> tuple[int, float]:
    """Return the index and the cost of the cheapest point of a ROC."""
    miss, false_alarm = point.weights
    cost = miss * roc.miss + false_alarm * roc.false_alarm
    index = int(np.argmin(cost))
    return index, float(cost[index])


def cllr(scores: FloatArray, target: BoolArray) -> float:
    """Return the cost of natural log-likelihood ratios [M] in bits (Brümmer & du Preez, 2006); without information, 1.

        1/2 [mean over targets of log2(1 + exp(-s)) + mean over non-targets of log2(1 + exp(s))]

    Raises:
        TrialError: see `check_trials`.
    """
    check_trials(scores, target)
    ratios = scores.astype(np.float64)
    losses = np.logaddexp(0, -ratios[target]).mean(), np.logaddexp(0, ratios[~target]).mean()
    return float(sum(losses) / (2 * np.log(2)))


def min_cllr(hull: Roc) -> float:
    """Return the minimum `cllr` over all rising functions of the scores, from the convex hull of their ROC (`rocch`).

    The optimal function gives every block of the PAV regression the log-ratio of its shares dt of the targets and dn
    of the non-targets (Brümmer & du Preez, 2006). The cost is then

        1/2 sum over blocks of dt log2(1 + dn / dt) + dn log2(1 + dt / dn)
    """
    targets, nontargets = np.diff(hull.miss), -np.diff(hull.false_alarm)
    both = targets + nontargets
    information = (rel_entr(targets, both) + rel_entr(nontargets, both)).sum()
    return float(0 - information / (2 * np.log(2)))  # 0 - 0 is 0, where -0 is the negative zero
