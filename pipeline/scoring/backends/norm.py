"""Score normalisation: scores are normalised by the scores of their utterances against a cohort of other speakers.

Cohort scores depend on an utterance, not on a trial. They are computed once for each utterance, and each trial only
looks up the statistics of its two sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.config.score import Norm
from pipeline.errors import ConfigError, TrialError
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray, IntArray

MatrixFunction = Callable[[FloatArray, FloatArray], FloatArray]
"""A function that scores all vectors [n, ...] against all of a cohort [K, ...]: [n, K], higher means more alike."""

BLOCK = 1 << 21
"""Maximum number of cohort scores in memory, 8 MB of float32."""
_TRIALS = 1 << 16  # trials normalised at a time, to save memory for their statistics


@dataclass(frozen=True)
class CohortStatistics:
    """Statistics of each utterance's cohort scores; NaN where it failed."""

    mean: Float64Array
    """The mean of the cohort scores [N]."""
    std: Float64Array
    """The population standard deviation of the cohort scores [N], normalised by their number."""


def cosine_matrix(vectors: FloatArray, cohort: FloatArray) -> FloatArray:
    """Return the cosines [n, K] of unit vectors [n, D] and [K, D]."""
    return np.asarray(vectors @ cohort.T)


def compute_cohort_statistics(
    vectors: FloatArray,
    cohort: FloatArray,
    matrix: MatrixFunction = cosine_matrix,
    top: int | None = None,
    exclude: tuple[IntArray, IntArray] | None = None,
    block: int = BLOCK,
) -> CohortStatistics:
    """Compute the mean and standard deviation of each utterance's cohort scores, one block of utterances at a time.

    Args:
        vectors: representations of the utterances [N, ...] on one side of the trials; NaN where they failed.
        cohort: representations of the cohort [K, ...]; failed ones are ignored.
        matrix: function that scores vectors against the cohort.
        top: number of highest scores to use; None for all.
        exclude: speaker numbers of the utterances [N] and of the cohort [K]; the cohort of an utterance then leaves out
            utterances of its own speaker.
        block: maximum number of scores in memory.

    Raises:
        ConfigError: `top` is below 2.
        TrialError: for some utterance, the cohort is smaller than 2 or than `top`, or its scores do not differ.
    """
    if top is not None and top < 2:
        raise ConfigError(f"the {top} highest cohort scores have no standard deviation: take 2 at least, or all.")
    usable = _finite_rows(cohort)
    if not usable.all():
        cohort = cohort[usable]
    speakers = None if exclude is None else (exclude[0], exclude[1][usable])
    mean, std = np.full(len(vectors), np.nan), np.full(len(vectors), np.nan)
    rows = np.flatnonzero(_finite_rows(vectors))
    step = max(1, block // max(1, len(cohort)))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        same = None if speakers is None else speakers[0][part, None] == speakers[1][None, :]
        _check_size(len(cohort), same, top)
        # Scores are sorted in place, so copy them: a matrix function may return an array that it keeps.
        scores = np.array(matrix(vectors[part], cohort))
        mean[part], std[part] = _moments(scores, same, top)
    # If all vectors are equal, the standard deviation consists of rounding errors.
    flat = np.flatnonzero(std <= 1e-6 * np.abs(mean))
    if len(flat):
        raise TrialError(
            f"the cohort scores of {len(flat):,} of {len(vectors):,} utterances do not differ, first of row {flat[0]}:"
            " they cannot be normalised by their standard deviation. Use a cohort of different utterances."
        )
    return CohortStatistics(mean, std)


def normalise_scores(
    norm: Norm,
    scores: FloatArray,
    enrol: CohortStatistics,
    test: CohortStatistics,
    enrol_rows: IntArray,
    test_rows: IntArray,
) -> FloatArray:
    """Return normalised scores [M], with the dtype of `scores`; NaN where a side failed.

    z-norm uses the enrolment side's cohort scores, (s - mu_e) / sd_e (Reynolds, 1997); t-norm the test side's
    (Auckenthaler et al., 2000); s-norm is the mean of both (Kenny, "Bayesian speaker verification with heavy-tailed
    priors", 2010). Adaptive s-norm is s-norm with statistics of the highest scores of each side (Cumani et al., 2011;
    "AS-norm1" in Matějka et al., "Analysis of score normalization in multilingual speaker recognition", 2017):

        s' = 1/2 [(s - mu_e) / sd_e + (s - mu_t) / sd_t]

    `as` and `s` only differ in the `top` of the statistics. `enrol_rows` and `test_rows` are the row of each trial in
    `enrol` and in `test` [M].
    """
    sides = {"z": ((enrol, enrol_rows),), "t": ((test, test_rows),)}.get(norm, ((enrol, enrol_rows), (test, test_rows)))
    result = np.empty_like(scores)
    for start in range(0, len(scores), _TRIALS):
        part = slice(start, start + _TRIALS)
        terms = [(scores[part] - side.mean[rows[part]]) / side.std[rows[part]] for side, rows in sides]
        result[part] = sum(terms) / len(terms)
    return result


def _finite_rows(vectors: FloatArray) -> BoolArray:
    """Return a mask of the rows [N] of [N, ...] without NaN or infinity, without allocating a mask of all values."""
    return np.asarray(np.isfinite(vectors.sum(axis=tuple(range(1, vectors.ndim)))))


def _check_size(cohort: int, same: BoolArray | None, top: int | None) -> None:
    left = cohort if same is None else cohort - int(same.sum(axis=1).max())
    if left < (top or 2):
        others = "" if same is None else " of other speakers"
        required = "at least 2 are needed" if top is None else f"the {top:,} highest scores are needed"
        raise TrialError(f"a cohort of {left:,} utterances{others} is too small: {required}. Use a larger cohort.")


def _moments(scores: FloatArray, same: BoolArray | None, top: int | None) -> tuple[Float64Array, Float64Array]:
    """Return mean and standard deviation [n] of scores [n, K], which are overwritten, leaving out `same` [n, K]."""
    if top is not None:
        if same is not None:
            scores[same] = -np.inf
        scores.partition(scores.shape[1] - top, axis=1)
        scores, same = scores[:, -top:], None
    kept = True if same is None else ~same
    mean = scores.mean(axis=1, dtype=np.float64, where=kept)
    np.subtract(scores, mean[:, None], out=scores, casting="same_kind")
    np.multiply(scores, scores, out=scores)
    return mean, np.sqrt(scores.mean(axis=1, dtype=np.float64, where=kept))
