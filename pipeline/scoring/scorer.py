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
from pipeline.scoring.comparison import COMPARISONS, Comparison, cosine_scores, mean_units, scale_peaks, unit_crops
from pipeline.scoring.condition_stores import check_comparable
from pipeline.scoring.enrolment import EnrolmentModels, Pooling, average_models, average_scores
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.zeros import require_no_zeros, zero_mask
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
    for side, each, column in zip(("enrol", "test"), sides, pairs.T, strict=True):
        _require_finite_directions(side, each, column)
    with np.errstate(invalid="ignore"):  # crops that cancel each other give NaN, which is checked below
        left, right = (mean_units(unit_crops(each if each.ndim == 3 else each[:, None])) for each in sides)
    scores = cosine_scores(left, right, Trials(pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), None))
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        enrol_row, test_row = pairs[first].tolist()
        raise TrialError(
            f"scores are NaN or infinite, first: trial {first}, because the crops of enrol row {enrol_row} or of test"
            f" row {test_row} cancel each other."
        )
    return scores


def _require_finite_directions(side: str, vectors: Float32Array, rows: NDArray[np.integer[Any]]) -> None:
    """Raise TrialError if vectors [N, ..., D] of the rows that trials name are zeros or not finite."""
    axes = tuple(range(1, vectors.ndim))
    bad = np.intersect1d(rows, np.flatnonzero(zero_mask(vectors) | ~np.isfinite(vectors).all(axis=axes)))
    if len(bad):
        raise TrialError(
            f"{len(bad):,} of the {side} rows that trials name are zeros or not finite, first: row {bad[0]}. Leave"
            " their trials out."
        )


@dataclass(frozen=True)
class Scorer:
    """A callable that scores trials between two stores."""

    enrolled: BoolArray
    """Mask of the utterances or models of the enrolment side that can be scored."""
    tested: BoolArray
    """Mask of the utterances of the test side that can be scored."""
    score: Callable[[Trials], Float32Array]
    """Function that returns the scores [M] of trials between these."""
    check: Callable[[Trials], None]
    """Function that raises StoreError if trials name a vector of zeros."""
    names: tuple[Sequence[str], Sequence[str]]
    """Ids of both sides, for messages."""
    path: Place
    """The path of the test store, for messages."""

    def __call__(self, trials: Trials) -> tuple[Trials, Float32Array]:
        """Return the trials without those of failed utterances, and their scores.

        Raises:
            StoreError: a vector is zero.
            TrialError: a score is not finite, because the crops of an utterance cancel each other.
        """
        kept = trials.keep(self.enrolled[trials.enrol] & self.tested[trials.test])
        self.check(kept)
        scores = self.score(kept)
        if not np.isfinite(scores).all():
            first = int(np.argmax(~np.isfinite(scores)))
            one, other = self.names[0][kept.enrol[first]], self.names[1][kept.test[first]]
            raise TrialError(
                f"{self.path}: scores are NaN or infinite, first that of {one} and {other}: the crops of one of them"
                " cancel each other."
            )
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
    left, zero_left = _represent(enrol, method)
    right, zero_right = (left, zero_left) if test.path == enrol.path else _represent(test, method)
    score = method.score
    if models is not None and comparison == "cosine":
        left = pool(left, models)
    elif models is not None:
        score = average_scores(models, ok, score)
    enrolled = ok if models is None else models.usable_mask(ok)

    def check(kept: Trials) -> None:
        rows = kept.enrol if models is None else models.select_rows(kept.enrol)
        for store, zero, used in ((enrol, zero_left, rows), (test, zero_right, kept.test)):
            if zero[used].any():
                require_no_zeros(store, np.flatnonzero(zero), len(store.ok))  # all, whatever these trials name

    names = (enrol.utterances if models is None else models.names), test.utterances
    return Scorer(enrolled, test.status == OK, partial(score, left, right), check, names, test.path)


def _represent(store: EmbeddingStore, method: Comparison) -> tuple[Float32Array, BoolArray]:
    """Return the representations of a store's utterances [N, ...], and a mask of those with a vector of zeros [N]."""
    crops = store.read()[:, :, 0]
    return method.represent(unit_crops(crops)), zero_mask(crops)


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
        StoreError: the stores cannot be compared, are damaged, or hold a vector of zeros that a trial names.
        TrialError: no trials are left, or a score is not finite.
    """
    kept, scores = scorer_of(enrol, test, models, pool, comparison)(trials)
    if len(kept) == 0:
        raise no_trials(test.path)
    return kept, scores


def no_trials(path: Place) -> TrialError:
    """Return the error for a list without any trial that can be scored."""
    return TrialError(f"{path}: no trials are left, because their utterances all failed. See its failures list.")
