"""Two-covariance PLDA: scores are log-likelihood ratios of a Gaussian model of speakers and of their utterances.

    x = y + e,    y ~ N(m, B) once a speaker,    e ~ N(0, W) once an utterance

(Brümmer & de Villiers, "The speaker partitioning problem", Odyssey 2010; Sizov et al., "Unifying probabilistic linear
discriminant analysis variants in biometric authentication", 2014.) A map that makes W the identity and B diagonal
turns the ratio of a trial into a dot product and a term for each side, so that trials are scored as cosines are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError

Floats = NDArray[np.float64]
Vectors = NDArray[np.floating]
Index = NDArray[np.int64]

_BLOCK = 512  # trials scored at a time: their vectors stay in the cache of the processor
_ROWS = 1 << 14  # vectors mapped at a time, as float64
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


@dataclass(frozen=True)
class LengthNorm:
    """Whitening, then one length: x -> sqrt(D) A (x - c) / |A (x - c)|.

    It makes embeddings look Gaussian (Garcia-Romero & Espy-Wilson, "Analysis of i-vector length normalization", 2011).
    """

    centre: Floats
    """c, the mean of the training vectors [D]."""
    whitening: Floats
    """A [D, D], symmetric root of the inverse of their covariance, smoothed as `fit` says."""

    @classmethod
    def fit(cls, vectors: Floats, pseudo: float) -> "LengthNorm":
        """Fit to vectors [N, D], adding `pseudo` to their number of ones that vary alike in all directions."""
        count, dim = vectors.shape
        centre = vectors.mean(axis=0)
        covariance = (vectors - centre).T @ (vectors - centre) / count
        spread = np.trace(covariance) / dim * np.eye(dim)
        values, axes = eigh((count * covariance + pseudo * spread) / (count + pseudo))
        return cls(centre, (axes / np.sqrt(values)) @ axes.T)

    def __call__(self, vectors: Floats) -> Floats:
        """Return vectors [N, D] whitened and of length sqrt(D)."""
        white = (vectors - self.centre) @ self.whitening
        norms = np.linalg.norm(white, axis=1, keepdims=True)
        return np.asarray(white * (np.sqrt(white.shape[1]) / np.where(norms == 0, 1, norms)))


@dataclass(frozen=True)
class Plda:
    """A fitted model, ready to score."""

    length_norm: LengthNorm | None
    """What vectors go through first."""
    model: Model
    """Of what comes out of it."""
    axes: Floats
    """V [D, D]: V^T W V = I, V^T B V = diag(ratios)."""
    ratios: Floats
    """Variance between speakers as a multiple of that within, along each axis [D]; 0 or more."""

    @classmethod
    def of(cls, model: Model, length_norm: LengthNorm | None = None) -> "Plda":
        """Diagonalise a model."""
        ratios, axes = eigh(model.between, model.within)
        return cls(length_norm, model, axes, np.maximum(ratios, 0))

    def represent(self, vectors: Vectors) -> Vectors:
        """Return what stands for vectors [N, D] in `dot_plus` and `matrix` [N, D + 1]; NaN where they are.

        With a and b the two sides of a trial along the axes, each of variance 1 + r in all and r between speakers,

            llr = sum of r / (1 + 2 r) a b - r^2 / (2 (1 + r) (1 + 2 r)) (a^2 + b^2) + log(1 + r) - 1/2 log(1 + 2 r)

        The first D columns are sqrt(r / (1 + 2 r)) a, the last has the terms of a^2 and half of the logarithms.
        A model of several utterances is best enrolled as the mean of their vectors, which this then takes for one.
        """
        r = self.ratios
        cross, own = np.sqrt(r / (1 + 2 * r)), r**2 / (2 * (1 + r) * (1 + 2 * r))
        constant = (np.log1p(r) - np.log1p(2 * r) / 2).sum() / 2
        result = np.empty((len(vectors), len(r) + 1), dtype=vectors.dtype)
        for start in range(0, len(vectors), _ROWS):
            part = slice(start, start + _ROWS)
            rows = vectors[part].astype(np.float64)
            if self.length_norm is not None:
                rows = self.length_norm(rows)
            rows = (rows - self.model.mean) @ self.axes
            result[part, :-1] = cross * rows
            result[part, -1] = constant - rows**2 @ own
        return result


def dot_plus(enrol: Vectors, test: Vectors, trials: Trials) -> Vectors:
    """Return the natural log-likelihood ratio [M] of every trial, from the stand-ins [N, D + 1] of both sides."""
    scores = np.empty(len(trials), dtype=np.result_type(enrol, test))
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        one, other = enrol[trials.enrol[part]], test[trials.test[part]]
        scores[part] = np.einsum("md,md->m", one[:, :-1], other[:, :-1]) + one[:, -1] + other[:, -1]
    return scores


def matrix(enrol: Vectors, test: Vectors) -> Vectors:
    """Return the natural log-likelihood ratios [N, K] of all pairs, from the stand-ins [N, D + 1] and [K, D + 1]."""
    scores = enrol[:, :-1] @ test[:, :-1].T
    scores += enrol[:, -1:]
    scores += test[:, -1]
    return np.asarray(scores)


def fit(
    vectors: Vectors,
    speakers: Index,
    iterations: int = 20,
    length_norm: bool = True,
    pseudo: float | None = None,
) -> Plda:
    """Fit the model by expectation maximisation from a start by moments.

    Few utterances leave directions in which speakers, or the utterances of one, seem not to vary at all; with more
    dimensions than utterances that is certain, and no ratio exists. So W is taken for what N utterances and `pseudo`
    others of equal variance in all directions say, B likewise of speakers: inverse Wishart priors on both, centred on
    the identity times the mean variance of the start. They fade as data grows.

    Args:
        vectors: of the training utterances [N, D]; those that failed (NaN) are left out.
        speakers: the speaker number of each [N]. One utterance of a speaker says something of B, though nothing of W.
        iterations: of EM; the likelihood, times the priors, never falls.
        length_norm: whiten vectors and give them all one length first (see `LengthNorm`), at scoring as well.
        pseudo: how many utterances the priors weigh; D if None, and 0 is maximum likelihood.

    Raises:
        TrialError: there are not two speakers with two utterances each, or their utterances do not differ.
    """
    if len(vectors) != len(speakers):
        raise TrialError(f"{len(vectors):,} vectors of {len(speakers):,} utterances; PLDA needs one each.")
    kept = np.isfinite(vectors).all(axis=1)
    _, numbers, counts = np.unique(speakers[kept], return_inverse=True, return_counts=True)
    if (counts >= 2).sum() < 2:
        raise TrialError(
            f"{(counts >= 2).sum()} of {len(counts):,} speakers have two utterances or more; PLDA needs two of them at"
            " least to tell how a speaker's utterances differ. Train it on utterances of known speakers."
        )
    rows = vectors[kept].astype(np.float64)
    pseudo = float(rows.shape[1]) if pseudo is None else pseudo
    front = LengthNorm.fit(rows, pseudo) if length_norm else None
    rows = rows if front is None else front(rows)
    data, start = moments(rows, numbers)
    try:
        return Plda.of(expect_maximise(data, start, iterations, pseudo), front)
    except np.linalg.LinAlgError as error:
        raise TrialError(
            f"PLDA of {len(rows):,} utterances of {len(counts):,} speakers, D = {rows.shape[1]}, has directions in"
            " which nobody's utterances differ: take more utterances, or a larger prior."
        ) from error


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
