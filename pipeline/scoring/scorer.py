"""Score trials: lists between two stores, or pairs of rows of two arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import ComparisonName
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError, VectorError
from pipeline.scoring.comparison import COMPARISONS, cosine_scores, mean_units, scale_peaks, unit_crops
from pipeline.scoring.condition_stores import check_comparable
from pipeline.scoring.enrolment import EnrolmentModels, Pooling, average_models, average_scores
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.array_types import BoolArray, Float32Array
from pipeline.utils.paths import Place


def score(enrol: NDArray[Any], test: NDArray[Any], trials: "NDArray[Any] | Sequence[Any]") -> Float32Array:
    """Return the cosine [T] of every trial; higher means more alike.

    Args:
        enrol: vectors [N, D], or crops [N, crops, D], whose directions are averaged.
        test: vectors [M, D], or crops [M, crops, D]; both sides raw, or both enhanced in the same way.
        trials: row of `enrol` and row of `test` for each trial [T, 2].

    Raises:
        VectorError: vectors are not floats, have other shapes, or the two sides have different dimensions.
        TrialError: trials are not pairs of rows, or name a vector that is zero or not finite.
    """
    sides = [np.asarray(each) for each in (enrol, test)]
    for each in sides:
        if each.ndim not in (2, 3) or each.dtype.kind != "f" or each.shape[-1] != sides[0].shape[-1]:
            raise VectorError(
                f"vectors are {sides[0].dtype} {sides[0].shape} and {sides[1].dtype} {sides[1].shape}; give floats"
                " [N, D] or [N, crops, D] and [M, D] or [M, crops, D]."
            )
    # Only the direction matters, so vectors that overflow or underflow in float32 are scaled first.
    sides = [
        (scale_peaks(each) if each.dtype == np.float64 and each.size else each).astype(np.float32) for each in sides
    ]
    pairs = np.asarray(trials)
    if pairs.size == 0:
        return np.empty(0, np.float32)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise TrialError(f"trials are {pairs.dtype} {pairs.shape}; give row numbers of both sides, [T, 2].")
    outside = (pairs < 0) | (pairs >= [len(each) for each in sides])
    if outside.any():
        first = int(np.flatnonzero(outside.any(axis=1))[0])
        raise TrialError(
            f"{int(outside.any(axis=1).sum())} of {len(pairs)} trials name rows that do not exist, first: trial"
            f" {first}, rows {pairs[first].tolist()} of {len(sides[0])} and {len(sides[1])}."
        )
    with np.errstate(invalid="ignore"):  # vectors that are zero or cancel each other give NaN, which is checked below
        left, right = (mean_units(unit_crops(each if each.ndim == 3 else each[:, None])) for each in sides)
    scores = cosine_scores(left, right, Trials(pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), None))
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise TrialError(
            f"scores are NaN or infinite, first: trial {first}, because a vector is all zeros or not finite."
        )
    return scores


@dataclass(frozen=True)
class Scorer:
    """A callable that scores trials between two stores."""

    enrolled: BoolArray
    """Mask of the utterances or models of the enrolment side that can be scored."""
    tested: BoolArray
    """Mask of the utterances of the test side that can be scored."""
    score: Callable[[Trials], Float32Array]
    """Function that returns the scores [M] of trials between these."""
    path: Place
    """The path of the test store, for messages."""

    def __call__(self, trials: Trials) -> tuple[Trials, Float32Array]:
        """Return the trials without those of failed utterances, and their scores.

        Raises:
            TrialError: a score is not finite, because a vector is all zeros.
        """
        kept = trials.keep(self.enrolled[trials.enrol] & self.tested[trials.test])
        scores = self.score(kept)
        if not np.isfinite(scores).all():
            raise TrialError(f"{self.path}: scores are NaN or infinite, because a vector of one side is all zeros.")
        return kept, scores


def scorer_of(
    enrol: EmbeddingStore,
    test: EmbeddingStore,
    models: EnrolmentModels | None = None,
    pool: Pooling = average_models,
    comparison: ComparisonName = "cosine",
) -> Scorer:
    """Read two stores, and return a scorer of trials between them.

    Models are of utterances of the enrolment store; their failed utterances are ignored. With `cosine`, `pool` makes a
    model's vector from its utterances; `pairwise` compares all crops of all utterances of a model.

    Raises:
        StoreError: the stores cannot be compared, or are damaged.
    """
    check_comparable(enrol, test)
    method, ok = COMPARISONS[comparison], enrol.status == OK
    left = method.represent(unit_crops(enrol.read()[:, :, 0]))
    right = left if test.path == enrol.path else method.represent(unit_crops(test.read()[:, :, 0]))
    score = method.score
    if models is not None and comparison == "cosine":
        left = pool(left, models)
    elif models is not None:
        score = average_scores(models, ok, score)
    enrolled = ok if models is None else models.usable_mask(ok)
    return Scorer(enrolled, test.status == OK, partial(score, left, right), test.path)


def score_list(
    enrol: EmbeddingStore,
    test: EmbeddingStore,
    trials: Trials,
    models: EnrolmentModels | None = None,
    pool: Pooling = average_models,
    comparison: ComparisonName = "cosine",
) -> tuple[Trials, Float32Array]:
    """Score a trial list between two stores; trials of failed utterances are skipped.

    Trials are rows of the enrolment store (or indices of models) and rows of the test store; see `scorer_of` for the
    others.

    Raises:
        StoreError: the stores cannot be compared, or are damaged.
        TrialError: no trials are left, or a score is not finite.
    """
    kept, scores = scorer_of(enrol, test, models, pool, comparison)(trials)
    if len(kept) == 0:
        raise no_trials(test.path)
    return kept, scores


def no_trials(path: Place) -> TrialError:
    """Return the error for a list without any trial that can be scored."""
    return TrialError(f"{path}: no trials are left, because their utterances all failed. See its failures list.")
