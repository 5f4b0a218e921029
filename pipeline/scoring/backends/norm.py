"""Score normalisation: a score is read against those that its utterances get from a cohort of other speakers.

What the cohort says depends on an utterance, not on a trial: it is computed once for each utterance, and a trial only
looks up both of its sides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, TrialError

Kind = Literal["z", "t", "s", "as"]
Floats = NDArray[np.float64]
Scores = NDArray[np.floating]
Vectors = NDArray[np.floating]
Index = NDArray[np.int64]
Matrix = Callable[[Vectors, Vectors], Scores]
"""Scores all of some vectors [n, ...] against all of a cohort [K, ...]: [n, K], higher means more alike."""

BLOCK = 1 << 21
"""Cohort scores held at a time: 8 MB of float32."""
_TRIALS = 1 << 16  # normalised at a time, so that what is looked up for them needs little memory


@dataclass(frozen=True)
class Statistics:
    """What the cohort says of each utterance; NaN where it failed."""

    mean: Floats
    """Of its cohort scores [N]."""
    std: Floats
    """Their standard deviation [N], of a population: divided by their number."""


def cosines(vectors: Vectors, cohort: Vectors) -> Scores:
    """Return the cosines [n, K] of unit vectors [n, D] and [K, D]."""
    return np.asarray(vectors @ cohort.T)


def statistics(
    vectors: Vectors,
    cohort: Vectors,
    matrix: Matrix = cosines,
    top: int | None = None,
    exclude: tuple[Index, Index] | None = None,
    block: int = BLOCK,
) -> Statistics:
    """Return mean and standard deviation of each utterance's cohort scores, a block of utterances at a time.

    Args:
        vectors: what stands for each utterance [N, ...], on one side of the trials; NaN where it failed.
        cohort: the same of the cohort [K, ...]; what failed is left out of it.
        matrix: how they are compared, as the trials are.
        top: how many of the highest scores count; all of them if None.
        exclude: speaker numbers of the utterances [N] and of the cohort [K]: nobody is his own impostor, so the cohort
            of an utterance has none of its speaker.
        block: most scores held at a time.

    Raises:
        ConfigError: `top` is below 2.
        TrialError: the cohort is smaller than 2 or than `top`, for some utterance; or its scores do not differ.
    """
    if top is not None and top < 2:
        raise ConfigError(f"the {top} highest cohort scores have no standard deviation: take 2 at least, or all.")
    usable = _finite(cohort)
    if not usable.all():
        cohort = cohort[usable]
    own = None if exclude is None else (exclude[0], exclude[1][usable])
    mean, std = np.full(len(vectors), np.nan), np.full(len(vectors), np.nan)
    rows = np.flatnonzero(_finite(vectors))
    step = max(1, block // max(1, len(cohort)))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        same = None if own is None else own[0][part, None] == own[1][None, :]
        _check_size(len(cohort), same, top)
        # A copy, as it is sorted in place and a matrix function may return what it keeps.
        scores = np.array(matrix(vectors[part], cohort))
        mean[part], std[part] = _moments(scores, same, top)
    # Vectors that are all the same leave a deviation of rounding errors.
    flat = np.flatnonzero(std <= 1e-6 * np.abs(mean))
    if len(flat):
        raise TrialError(
            f"the cohort scores of {len(flat):,} of {len(vectors):,} utterances do not differ, first of row {flat[0]}:"
            " they cannot be normalised by their deviation. Take a cohort of different utterances."
        )
    return Statistics(mean, std)


def normalise(
    kind: Kind, scores: Scores, enrol: Statistics, test: Statistics, enrol_rows: Index, test_rows: Index
) -> Scores:
    """Return normalised scores [M], of the type of `scores`; NaN where a side failed.

    z-norm takes the enrolment side's cohort scores, (s - mu_e) / sd_e (Reynolds, 1997); t-norm the test side's
    (Auckenthaler et al., 2000); s-norm is the mean of both (Kenny, "Bayesian speaker verification with heavy-tailed
    priors", 2010). Adaptive s-norm is the same of statistics over the highest scores of each side (Cumani et al.,
    2011; "AS-norm1" in Matějka et al., "Analysis of score normalization in multilingual speaker recognition", 2017):

        s' = 1/2 [(s - mu_e) / sd_e + (s - mu_t) / sd_t]

    Args:
        kind: `as` is for statistics with `top`, and `s` for those without.
        scores: of the trials [M].
        enrol: statistics of the enrolment utterances.
        test: of the test utterances.
        enrol_rows: of each trial in `enrol` [M].
        test_rows: of each trial in `test` [M].
    """
    sides = {"z": ((enrol, enrol_rows),), "t": ((test, test_rows),)}.get(kind, ((enrol, enrol_rows), (test, test_rows)))
    result = np.empty_like(scores)
    for start in range(0, len(scores), _TRIALS):
        part = slice(start, start + _TRIALS)
        terms = [(scores[part] - side.mean[rows[part]]) / side.std[rows[part]] for side, rows in sides]
        result[part] = sum(terms) / len(terms)
    return result


def _finite(vectors: Vectors) -> NDArray[np.bool_]:
    """Return which rows [N] of [N, ...] hold numbers only, without a mask as large as they are."""
    return np.asarray(np.isfinite(vectors.sum(axis=tuple(range(1, vectors.ndim)))))


def _check_size(cohort: int, same: NDArray[np.bool_] | None, top: int | None) -> None:
    left = cohort if same is None else cohort - int(same.sum(axis=1).max())
    if left < (top or 2):
        others = "" if same is None else " of other speakers"
        wanted = "2 are the least" if top is None else f"the {top:,} highest scores are to count"
        raise TrialError(f"a cohort of {left:,} utterances{others} is too small: {wanted}. Take a larger cohort.")


def _moments(scores: Scores, same: NDArray[np.bool_] | None, top: int | None) -> tuple[Floats, Floats]:
    """Return mean and standard deviation [n] of scores [n, K] that it overwrites, `same` [n, K] left out."""
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
