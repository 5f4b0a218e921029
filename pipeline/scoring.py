"""Score lists of trials between two stores."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import COMPARISONS, Name, unit_crops
from pipeline.enrolment import Models, Pooling, mean_of_units, mean_over
from pipeline.errors import TrialError
from pipeline.places import Place
from pipeline.spaces import check_comparable
from pipeline.store import OK, EmbeddingStore
from pipeline.trials import Trials


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
    models: Models | None = None,
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
    left = how.stand_ins(unit_crops(enrol.read()[:, :, 0]))
    right = left if test.path == enrol.path else how.stand_ins(unit_crops(test.read()[:, :, 0]))
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
    models: Models | None = None,
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
