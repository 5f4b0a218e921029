"""Training of two-covariance PLDA: what the data say, a start by moments, and the steps of EM."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from pipeline.errors import TrialError

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

_LEAST = 1e-3  # a between-speaker variance of 0 would stay 0 in all steps: the start has some in every direction


@dataclass(frozen=True)
class Model:
    """x = y + e, y ~ N(mean, between) once a speaker, e ~ N(0, within) once an utterance."""

    mean: Floats
    """m [D]."""
    between: Floats
    """B [D, D], positive semidefinite."""
    within: Floats
    """W [D, D], positive definite."""


@dataclass(frozen=True)
class Data:
    """Sufficient statistics of the utterances: all that a step looks at, so that its cost does not grow with N."""

    counts: Floats
    """Utterances of each speaker [S]."""
    sums: Floats
    """Sum of each speaker's vectors [S, D]."""
    scatter: Floats
    """Sum of x x^T over all utterances [D, D]."""


def moments(vectors: Floats, speakers: Index) -> tuple[Data, Model]:
    """Return the statistics of vectors [N, D] of speakers 0 to S - 1 [N], and the moment estimate to start from.

    W is the covariance within speakers, N - S in the denominator; B is that of the speakers' means less what W adds to
    it, and of its negative variances nothing but a thousandth of the mean total variance is left.

    Raises:
        TrialError: no speaker's utterances differ.
    """
    total, dim = vectors.shape
    order = np.argsort(speakers, kind="stable")
    counts = np.bincount(speakers).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    data = Data(counts, sums, vectors.T @ vectors)

    freedom = len(counts) - 1
    inner = vectors - (sums / counts[:, None])[speakers]  # subtracted before it is squared, for precision
    within = inner.T @ inner / (total - len(counts))
    mean = vectors.mean(axis=0)
    outer = sums / counts[:, None] - mean
    per_speaker = (total - (counts**2).sum() / total) / freedom
    between = ((counts[:, None] * outer).T @ outer / freedom - within) / per_speaker
    spread = np.trace(within) / dim
    variance = spread + max(0.0, np.trace(between) / dim)
    if not spread > 1e-12 * variance:
        raise TrialError("the utterances of every speaker are the same vectors: PLDA cannot tell how they differ.")
    values, axes = eigh(between)
    return data, Model(mean, (axes * np.maximum(values, _LEAST * variance)) @ axes.T, within)


def expect_maximise(data: Data, start: Model, iterations: int, pseudo: float) -> Model:
    """Return the model after some steps of EM, with inverse Wishart priors on W and B.

    Their densities are |C|^(-pseudo / 2) exp(-pseudo / 2 tr(P C^-1)) but for a constant, with C = W or B and P the
    identity times its mean variance at the start. So they weigh as much as `pseudo` utterances or speakers, and what a
    step raises is the likelihood times both.

    Raises:
        LinAlgError: W is singular, where there is no prior.
    """
    dim = len(start.mean)
    ideal = [np.trace(matrix) / dim * np.eye(dim) for matrix in (start.between, start.within)]
    speakers, total = len(data.counts), data.counts.sum()
    # W by moments may be singular; EM would keep it so.
    model = Model(start.mean, start.between, (total * start.within + pseudo * ideal[1]) / (total + pseudo))
    for _ in range(iterations):
        mean, between, within = _step(data, model)
        model = Model(
            mean,
            (speakers * between + pseudo * ideal[0]) / (speakers + pseudo),
            (total * within + pseudo * ideal[1]) / (total + pseudo),
        )
    return model


def _step(data: Data, model: Model) -> tuple[Floats, Floats, Floats]:
    """Return m [D], B [D, D] and W [D, D] of greatest expected likelihood under the posterior of y.

    Along the axes that make W the identity and B diagonal with r, the posterior of a speaker with n utterances of sum f
    has the variance r / (1 + n r) and the mean m + r / (1 + n r) (f - n m).
    """
    ratios, axes = eigh(model.between, model.within)
    ratios = np.maximum(ratios, 0)
    back = model.within @ axes  # the inverse of axes^T
    counts = data.counts[:, None]
    variance = ratios / (1 + counts * ratios)
    expected = model.mean + (variance * ((data.sums - counts * model.mean) @ axes)) @ back.T

    mean = expected.mean(axis=0)
    spread = expected - mean
    between = (spread.T @ spread + (back * variance.sum(axis=0)) @ back.T) / len(counts)
    cross = expected.T @ data.sums
    speaker = (counts * expected).T @ expected + (back * (counts * variance).sum(axis=0)) @ back.T
    within = (data.scatter - cross - cross.T + speaker) / counts.sum()
    return mean, between, within
