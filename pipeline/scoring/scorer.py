"""Score trials: lists between two stores, or pairs of rows of two arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError, VectorError
from pipeline.scoring.comparison import COMPARISONS, Name, cosine_scores, mean_units, moderate, unit_crops
from pipeline.scoring.condition_stores import check_comparable
from pipeline.scoring.enrolment import EnrolmentModels, Pooling, mean_of_units, mean_over
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.paths import Place


def score(enrol: NDArray[Any], test: NDArray[Any], trials: "NDArray[Any] | Sequence[Any]") -> NDArray[np.float32]:
    """Return the cosine [T] of every trial, higher meaning more alike.

    Args:
        enrol: vectors [N, D], or crops [N, crops, D], which stand together by the mean of their directions.
        test: vectors [M, D], or crops [M, crops, D]; both sides raw, or both enhanced alike.
        trials: row of `enrol` and row of `test` of each, [T, 2].

    Raises:
        VectorError: vectors are no floats, of other shapes, or the sides of other dimensions.
        TrialError: trials are no pairs of rows, or a vector that is asked for is zero or not finite.
    """
    sides = [np.asarray(each) for each in (enrol, test)]
    for each in sides:
        if each.ndim not in (2, 3) or each.dtype.kind != "f" or each.shape[-1] != sides[0].shape[-1]:
            raise VectorError(
                f"vectors are {sides[0].dtype} {sides[0].shape} and {sides[1].dtype} {sides[1].shape}; give floats"
                " [N, D] or [N, crops, D] and [M, D] or [M, crops, D]."
            )
    # A direction is that of a vector of any length, also of one that float32 does not hold.
    sides = [(moderate(each) if each.dtype == np.float64 and each.size else each).astype(np.float32) for each in sides]
    pairs = np.asarray(trials)
    if pairs.size == 0:
        return np.empty(0, np.float32)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise TrialError(f"trials are {pairs.dtype} {pairs.shape}; give row numbers of both sides, [T, 2].")
    outside = (pairs < 0) | (pairs >= [len(each) for each in sides])
    if outside.any():
        first = int(np.flatnonzero(outside.any(axis=1))[0])
        raise TrialError(
            f"{int(outside.any(axis=1).sum())} of {len(pairs)} trials name rows that are not there, first: trial"
            f" {first}, rows {pairs[first].tolist()} of {len(sides[0])} and {len(sides[1])}."
        )
    with np.errstate(invalid="ignore"):  # of vectors that are zero, or cancel each other
        left, right = (mean_units(unit_crops(each if each.ndim == 3 else each[:, None])) for each in sides)
    scores = cosine_scores(left, right, Trials(pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), None))
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise TrialError(f"scores are NaN or infinite, first: trial {first}, for a vector is all zeros or not finite.")
    return scores


@dataclass(frozen=True)
class Scorer:
    """What scores trials between two stores."""

    enrolled: NDArray[np.bool_]
    """Which utterances, or models, of the enrolment side can be scored."""
    tested: NDArray[np.bool_]
    score: Callable[[Trials], NDArray[np.float32]]
    """The score [M] of every trial of these."""
    path: Place
    """Of the test store, for messages."""

    def __call__(self, trials: Trials) -> tuple[Trials, NDArray[np.float32]]:
        """Return trials without those of failed utterances, and their scores.

        Raises:
            TrialError: a score is not finite, since a vector is all zeros.
        """
        kept = trials.keep(self.enrolled[trials.enrol] & self.tested[trials.test])
        scores = self.score(kept)
        if not np.isfinite(scores).all():
            raise TrialError(f"{self.path}: scores are NaN or infinite, for a vector of either side is all zeros.")
        return kept, scores


def scorer_of(
    enrol: EmbeddingStore,
    test: EmbeddingStore,
    models: EnrolmentModels | None = None,
    pool: Pooling = mean_of_units,
    comparison: Name = "cosine",
) -> Scorer:
    """Read two stores, and return what scores trials between them.

    Args:
        enrol: store of the enrolment side.
        test: store of the test side.
        models: enrolment models of the enrolment store's utterances; what failed is left out of them.
        pool: how the utterances of a model become its vector, where the comparison is one of vectors.
        comparison: how two sides are compared; `pairwise` takes all crops of all utterances of a model.

    Raises:
        StoreError: the stores cannot be compared, or are damaged.
    """
    check_comparable(enrol, test)
    how, ok = COMPARISONS[comparison], enrol.status == OK
    left = how.represent(unit_crops(enrol.read()[:, :, 0]))
    right = left if test.path == enrol.path else how.represent(unit_crops(test.read()[:, :, 0]))
    score = how.score
    if models is not None and comparison == "cosine":
        left = pool(left, models)
    elif models is not None:
        score = mean_over(models, ok, score)
    enrolled = ok if models is None else models.usable(ok)
    return Scorer(enrolled, test.status == OK, partial(score, left, right), test.path)


def score_list(
    enrol: EmbeddingStore,
    test: EmbeddingStore,
    trials: Trials,
    models: EnrolmentModels | None = None,
    pool: Pooling = mean_of_units,
    comparison: Name = "cosine",
) -> tuple[Trials, NDArray[np.float32]]:
    """Score a trial list between two stores; trials of failed utterances are left out.

    Args:
        enrol: store of the enrolment side.
        test: store of the test side.
        trials: rows of the test store against rows of the enrolment store, or against models.
        models: see `scorer_of`.
        pool: see `scorer_of`.
        comparison: see `scorer_of`.

    Raises:
        StoreError: the stores cannot be compared, or are damaged.
        TrialError: no trials are left, or a score is not finite.
    """
    kept, scores = scorer_of(enrol, test, models, pool, comparison)(trials)
    if len(kept) == 0:
        raise no_trials(test.path)
    return kept, scores


def no_trials(path: Place) -> TrialError:
    """Return the error of trials none of which can be scored."""
    return TrialError(f"{path}: no trials are left, their utterances all failed. See its failures list.")
