"""Calibration and fusion: a linear map from scores to log-likelihood ratios, by logistic regression.

    llr = w^T s + b

One column of scores is calibrated, several are fused; columns may also be quality measures of the trial. As in the
FoCal toolkit (Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU submission", 2007), w
and b minimise the cost of the decisions that follow from the ratios at a prior P of targets:

    P mean over targets of log(1 + exp(-llr - logit P)) + (1 - P) mean over non-targets of log(1 + exp(llr + logit P))

At P = 0.5 that is `metrics.cllr`, but for a factor.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from pipeline.errors import ConfigError, TrialError

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """A linear map from scores to natural log-likelihood ratios."""

    weights: Floats
    """Of the columns [F]."""
    offset: float

    def apply(self, scores: Scores) -> Floats:
        """Return natural log-likelihood ratios [M] of scores [M, F]; NaN where a score is."""
        if scores.ndim != 2 or scores.shape[1] != len(self.weights):
            raise TrialError(f"scores {scores.shape} do not fit a calibration of {len(self.weights)} columns.")
        return np.asarray(scores @ self.weights + self.offset)


def fit(scores: Scores, target: Mask, prior: float = 0.5, ridge: float = 1e-6) -> Calibration:
    """Fit a calibration to trials of known label; they must not be the ones it is judged by.

    Scores that a threshold separates have no optimum: the cost falls for ever as the weights grow. `ridge` times half
    the square of the weights, of columns scaled to unit variance, is added to it so that there is one. Where the
    classes overlap, it changes the ratios in the sixth digit or so.

    Args:
        scores: of the trials [M, F].
        target: whether same speaker [M].
        prior: P(target) in the cost, whatever the share of targets is. Errors near the threshold of this prior weigh
            most.
        ridge: see above.

    Raises:
        ConfigError: the prior is not between 0 and 1, or the ridge not positive.
        TrialError: no trials, one class only, or scores that are not finite.
    """
    if not 0 < prior < 1 or not ridge > 0:
        raise ConfigError(f"calibration takes a prior between 0 and 1 and a ridge above 0, not {prior:g}, {ridge:g}.")
    _check(scores, target)
    columns = scores.astype(np.float64)
    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    constant = scale <= 1e-12 * np.abs(mean)  # says nothing, and must not be blown up: its weight is 0
    scale[constant] = 1
    columns -= mean
    columns /= scale
    columns[:, constant] = 0

    sign = np.where(target, 1.0, -1.0)
    share = np.where(target, prior / target.sum(), (1 - prior) / (~target).sum())
    odds = float(logit(prior))

    def cost(parameters: Floats) -> tuple[float, Floats]:
        weights, offset = parameters[:-1], parameters[-1]
        margin = sign * (columns @ weights + (offset + odds))
        slope = -share * sign * expit(-margin)
        value = share @ np.logaddexp(0, -margin) + ridge / 2 * (weights @ weights)
        return float(value), np.append(columns.T @ slope + ridge * weights, slope.sum())

    start = np.zeros(columns.shape[1] + 1)
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options=options).x
    weights = found[:-1] / scale
    return Calibration(weights, float(found[-1] - weights @ mean))


def qmf(enrol: Scores, test: Scores) -> Floats:
    """Return quality measures of trials [M, 2], to go beside their scores: the lower and the higher of both sides'.

    So they do not depend on which side is which (Thienpondt et al., "The IDLab VoxSRC-20 submission", 2021). In use are
    the logarithm of the seconds of speech, the length of the embedding as the encoder gave it, and the mean of the
    highest cohort scores (`norm.Statistics.mean`).

    Args:
        enrol: the value of the enrolment side [M].
        test: the value of the test side [M].
    """
    return np.stack([np.minimum(enrol, test), np.maximum(enrol, test)], axis=1).astype(np.float64)


def _check(scores: Scores, target: Mask) -> None:
    if scores.ndim != 2 or len(scores) != len(target) or scores.shape[1] == 0:
        raise TrialError(f"scores {scores.shape} of {len(target):,} trials: calibration takes trials by columns.")
    if len(target) == 0 or target.all() or not target.any():
        raise TrialError(f"{len(target):,} trials of one class or none; calibration needs targets and non-targets.")
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=0))
    if len(bad):
        raise TrialError(
            f"column {bad[0] + 1} of {scores.shape[1]} holds NaN or infinite values: calibration cannot learn from it."
        )
