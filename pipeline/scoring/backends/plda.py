"""Two-covariance PLDA: scores are log-likelihood ratios of a Gaussian model of speakers and of their utterances.

    x = y + e,    y ~ N(m, B) for each speaker,    e ~ N(0, W) for each utterance

(Brümmer & de Villiers, "The speaker partitioning problem", Odyssey 2010; Sizov et al., "Unifying probabilistic linear
discriminant analysis variants in biometric authentication", 2014.) A linear map makes W the identity and B diagonal.
The ratio of a trial is then a dot product plus one term for each side, so trials are scored like cosines.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.scoring.backends.vectors import LengthNorm
from pipeline.utils.array_types import Float64Array, FloatArray, IntArray

_BLOCK = 512  # trials scored at a time: their vectors stay in the processor's cache
_ROWS = 1 << 14  # vectors mapped at a time, as float64
_MIN_VARIANCE = 1e-3  # a between-speaker variance that starts at 0 would stay 0 in all steps of EM


@dataclass(frozen=True)
class PldaModel:
    """The parameters of x = y + e, y ~ N(mean, between) for each speaker, e ~ N(0, within) for each utterance."""

    mean: Float64Array
    """m [D]."""
    between: Float64Array
    """B [D, D], positive semidefinite."""
    within: Float64Array
    """W [D, D], positive definite."""


@dataclass(frozen=True)
class SpeakerStatistics:
    """Sufficient statistics of the utterances for EM; the cost of a step does not depend on N."""

    counts: Float64Array
    """Number of utterances of each speaker [S]."""
    sums: Float64Array
    """The sum of each speaker's vectors [S, D]."""
    scatter: Float64Array
    """The sum of x x^T over all utterances [D, D]."""


@dataclass(frozen=True)
class Plda:
    """A fitted model, ready to score."""

    length_norm: LengthNorm | None
    """The transform of vectors before the model."""
    model: PldaModel
    axes: Float64Array
    """V [D, D]: V^T W V = I, V^T B V = diag(ratios)."""
    ratios: Float64Array
    """The ratio of between-speaker to within-speaker variance along each axis [D], at least 0."""

    @classmethod
    def from_model(cls, model: PldaModel, length_norm: LengthNorm | None = None) -> "Plda":
        """Diagonalise a model."""
        ratios, axes = eigh(model.between, model.within)
        return cls(length_norm, model, axes, np.maximum(ratios, 0))

    def represent(self, vectors: FloatArray) -> FloatArray:
        """Return the representations [N, D + 1] of vectors [N, D] for `score_trials` and `score_matrix`; NaN stays NaN.

        Let a and b be the two sides of a trial along the axes, with total variance 1 + r and variance r between
        speakers. Then

            llr = sum of r / (1 + 2 r) a b - r^2 / (2 (1 + r) (1 + 2 r)) (a^2 + b^2) + log(1 + r) - 1/2 log(1 + 2 r)

        The first D columns are sqrt(r / (1 + 2 r)) a; the last has the terms of a^2 and half of the logarithms.
        To enrol a model of several utterances, use the mean of their vectors, which is treated as one vector.
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


def score_trials(enrol: FloatArray, test: FloatArray, trials: Trials) -> FloatArray:
    """Return the natural log-likelihood ratio [M] of every trial, from both sides' representations [N, D + 1]."""
    scores = np.empty(len(trials), dtype=np.result_type(enrol, test))
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        one, other = enrol[trials.enrol[part]], test[trials.test[part]]
        scores[part] = np.einsum("md,md->m", one[:, :-1], other[:, :-1]) + one[:, -1] + other[:, -1]
    return scores


def score_matrix(enrol: FloatArray, test: FloatArray) -> FloatArray:
    """Return the natural log-likelihood ratios [N, K] of all pairs, from representations [N, D + 1] and [K, D + 1]."""
    scores = enrol[:, :-1] @ test[:, :-1].T
    scores += enrol[:, -1:]
    scores += test[:, -1]
    return np.asarray(scores)


def fit_plda(
    vectors: FloatArray, speakers: IntArray, iterations: int = 20, length_norm: bool = True, pseudo: float | None = None
) -> Plda:
    """Fit the model by expectation maximisation, initialised by moments.

    With few utterances, speakers or the utterances of a speaker may not vary in some directions; with more dimensions
    than utterances, this is certain, and no ratio exists. Inverse Wishart priors on W and B prevent this: they add
    `pseudo` utterances (for B, speakers) with equal variance in all directions, the mean variance at the start. Their
    influence fades as data grows.

    Args:
        vectors: vectors of the training utterances [N, D]; failed ones (NaN) are ignored.
        speakers: the speaker number of each [N]. A speaker with a single utterance adds to B, but not to W.
        iterations: number of EM iterations; the likelihood times the priors never falls.
        length_norm: apply `LengthNorm` first, in training and scoring.
        pseudo: weight of the priors in utterances; None for D, 0 for maximum likelihood.

    Raises:
        TrialError: fewer than two speakers have two utterances, or their utterances do not differ.
    """
    if len(vectors) != len(speakers):
        raise TrialError(f"{len(vectors):,} vectors of {len(speakers):,} utterances; PLDA needs one each.")
    kept = np.isfinite(vectors).all(axis=1)
    _, numbers, counts = np.unique(speakers[kept], return_inverse=True, return_counts=True)
    if (counts >= 2).sum() < 2:
        raise TrialError(
            f"{(counts >= 2).sum()} of {len(counts):,} speakers have two utterances or more; PLDA needs at least two"
            " such speakers. Train it on more utterances of known speakers."
        )
    rows = vectors[kept].astype(np.float64)
    pseudo = float(rows.shape[1]) if pseudo is None else pseudo
    front = LengthNorm.fit(rows, pseudo) if length_norm else None
    rows = rows if front is None else front(rows)
    data, start = estimate_moments(rows, numbers)
    try:
        return Plda.from_model(run_em(data, start, iterations, pseudo), front)
    except np.linalg.LinAlgError as error:
        raise TrialError(
            f"PLDA of {len(rows):,} utterances of {len(counts):,} speakers, D = {rows.shape[1]}: in some directions, no"
            " speaker's utterances differ. Use more utterances, or a larger prior."
        ) from error


def estimate_moments(vectors: Float64Array, speakers: IntArray) -> tuple[SpeakerStatistics, PldaModel]:
    """Return the statistics of vectors [N, D] of speakers 0 to S - 1 [N], and the moment estimate that EM starts from.

    W is the covariance within speakers, with denominator N - S. B is the covariance of the speakers' means minus the
    contribution of W; its variances are raised to at least a thousandth of the mean total variance.

    Raises:
        TrialError: the utterances of every speaker are equal.
    """
    total, dim = vectors.shape
    order = np.argsort(speakers, kind="stable")
    counts = np.bincount(speakers).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    data = SpeakerStatistics(counts, sums, vectors.T @ vectors)

    freedom = len(counts) - 1
    inner = vectors - (sums / counts[:, None])[speakers]  # subtract before squaring, for precision
    within = inner.T @ inner / (total - len(counts))
    mean = vectors.mean(axis=0)
    outer = sums / counts[:, None] - mean
    per_speaker = (total - (counts**2).sum() / total) / freedom
    between = ((counts[:, None] * outer).T @ outer / freedom - within) / per_speaker
    spread = np.trace(within) / dim
    variance = spread + max(0.0, np.trace(between) / dim)
    if not spread > 1e-12 * variance:
        raise TrialError("the utterances of every speaker are the same vectors: PLDA cannot learn how they differ.")
    values, axes = eigh(between)
    return data, PldaModel(mean, (axes * np.maximum(values, _MIN_VARIANCE * variance)) @ axes.T, within)


def run_em(data: SpeakerStatistics, start: PldaModel, iterations: int, pseudo: float) -> PldaModel:
    """Return the model after some steps of EM, with inverse Wishart priors on W and B.

    Their densities are proportional to |C|^(-pseudo / 2) exp(-pseudo / 2 tr(P C^-1)), with C = W or B, and P the
    identity times the mean variance of C at the start. They weigh as much as `pseudo` utterances or speakers. No step
    lowers the likelihood times both priors.

    Raises:
        LinAlgError: W is singular, and there is no prior.
    """
    dim = len(start.mean)
    ideal = [np.trace(matrix) / dim * np.eye(dim) for matrix in (start.between, start.within)]
    speakers, total = len(data.counts), data.counts.sum()
    # The moment estimate of W can be singular, and EM would keep it singular.
    model = PldaModel(start.mean, start.between, (total * start.within + pseudo * ideal[1]) / (total + pseudo))
    for _ in range(iterations):
        mean, between, within = _step(data, model)
        model = PldaModel(
            mean,
            (speakers * between + pseudo * ideal[0]) / (speakers + pseudo),
            (total * within + pseudo * ideal[1]) / (total + pseudo),
        )
    return model


def _step(data: SpeakerStatistics, model: PldaModel) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return m [D], B [D, D] and W [D, D] that maximise the expected likelihood under the posterior of y.

    Along the axes that make W the identity and B diagonal with r, the posterior of a speaker with n utterances of sum f
    has variance r / (1 + n r) and mean m + r / (1 + n r) (f - n m).
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
