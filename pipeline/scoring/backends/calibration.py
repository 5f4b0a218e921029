"""Calibration and fusion: a linear map from scores to log-likelihood ratios, by logistic regression.

    llr = w^T s + b

One column of scores is calibrated, several columns are fused; a column can also be a quality measure of the trial. As
in the FoCal toolkit (Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU submission",
2007), w and b minimise the cost of the decisions that follow from the ratios at a prior P of targets:

    P mean over targets of log(1 + exp(-llr - logit P)) + (1 - P) mean over non-targets of log(1 + exp(llr + logit P))

At P = 0.5, this is `metrics.cllr` times a constant.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from pipeline.errors import ConfigError, TrialError
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray


@dataclass(frozen=True)
class Calibration:
    """A linear map from scores to natural log-likelihood ratios."""

    weights: Float64Array
    """Weights of the columns [F]."""
    offset: float

    def apply(self, scores: FloatArray) -> Float64Array:
        """Return natural log-likelihood ratios [M] of scores [M, F]; NaN where a score is NaN."""
        if scores.ndim != 2 or scores.shape[1] != len(self.weights):
            raise TrialError(f"scores {scores.shape} do not fit a calibration of {len(self.weights)} columns.")
        return np.asarray(scores @ self.weights + self.offset)


def fit_calibration(scores: FloatArray, target: BoolArray, prior: float = 0.5, ridge: float = 1e-6) -> Calibration:
    """Fit a calibration to labelled trials, which must not be the trials that it is evaluated on.

    If a threshold separates the classes, the cost has no minimum: it keeps falling as the weights grow. A penalty, half
    of `ridge` times the squared weights of columns scaled to unit variance, ensures a minimum. If the classes overlap,
    it changes the ratios in about the sixth digit.

    Args:
        scores: scores of the trials [M, F].
        target: whether both sides are the same speaker [M].
        prior: P(target) in the cost, independent of the share of targets. Errors near the threshold of this prior have
            the largest weight.
        ridge: factor of the penalty.

    Raises:
        ConfigError: the prior is not between 0 and 1, or the ridge is not positive.
        TrialError: there are no trials or only one class of them, or scores are not finite.
    """
    if not 0 < prior < 1 or not ridge > 0:
        raise ConfigError(
            f"calibration needs a prior between 0 and 1 and a ridge above 0, but they are {prior:g} and {ridge:g}."
        )
    _check(scores, target)
    columns = scores.astype(np.float64)
    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    constant = scale <= 1e-12 * np.abs(mean)  # uninformative, and scaling would amplify rounding: its weight is 0
    scale[constant] = 1
    columns -= mean
    columns /= scale
    columns[:, constant] = 0

    sign = np.where(target, 1.0, -1.0)
    share = np.where(target, prior / target.sum(), (1 - prior) / (~target).sum())
    odds = float(logit(prior))

    def cost(parameters: Float64Array) -> tuple[float, Float64Array]:
        weights, offset = parameters[:-1], parameters[-1]
        margin = sign * (columns @ weights + (offset + odds))
        slope = -share * sign * expit(-margin)
        value = share @ np.logaddexp(0, -margin) + ridge / 2 * (weights @ weights)
        return float(value), np.append(columns.T @ slope + ridge * weights, slope.sum())

    start = np.zeros(columns.shape[1] + 1)
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    optimum = minimize(cost, start, jac=True, method="L-BFGS-B", options=options).x
    weights = optimum[:-1] / scale
    return Calibration(weights, float(optimum[-1] - weights @ mean))


def stack_quality(enrol: FloatArray, test: FloatArray) -> Float64Array:
    """Return quality measures of trials [M, 2]: the lower and the higher value of both sides [M].

    They do not depend on the order of the sides (QMF, Thienpondt et al., "The IDLab VoxSRC-20 submission", 2021).
    Common measures are the logarithm of the speech duration, the norm of the raw embedding, and the mean of the highest
    cohort scores (`CohortStatistics.mean`).
    """
    return np.stack([np.minimum(enrol, test), np.maximum(enrol, test)], axis=1).astype(np.float64)


def _check(scores: FloatArray, target: BoolArray) -> None:
    if scores.ndim != 2 or len(scores) != len(target) or scores.shape[1] == 0:
        raise TrialError(f"scores {scores.shape} of {len(target):,} trials: calibration needs trials by columns.")
    if len(target) == 0 or target.all() or not target.any():
        raise TrialError(f"{len(target):,} trials of one class or none; calibration needs targets and non-targets.")
    rows, columns = np.nonzero(~np.isfinite(scores))
    if len(rows):
        raise TrialError(
            f"{len(np.unique(rows)):,} of {len(scores):,} trials have NaN or infinite scores, first: trial {rows[0]},"
            f" column {columns[0] + 1} of {scores.shape[1]}: calibration cannot use them."
        )
