"""Score trials on stored embeddings, and measure what the scores are worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import COMPARISONS, Name
from pipeline.enrolment import Models, Pooling, mean_of_units, mean_over
from pipeline.errors import StoreError, TrialError
from pipeline.metrics import Roc, compare, thin
from pipeline.operating_points import STANDARD, OperatingPoint
from pipeline.places import Place
from pipeline.store import OK, SPACE, EmbeddingStore
from pipeline.trials import Trials, all_pairs, speakers_of

REVISION = 2
"""Raise it when the same stores and trials give other figures: they are then measured anew."""


def check_comparable(enrol: EmbeddingStore, test: EmbeddingStore) -> None:
    """Raise StoreError unless the vectors of two stores live in one space."""
    for key in ("dim", *SPACE, "enhanced_by_sha256", "timestep"):
        if enrol.attributes.get(key) != test.attributes.get(key):
            raise StoreError(
                f"{enrol.path} and {test.path} cannot be compared: {key} is {enrol.attributes.get(key)!r} and"
                f" {test.attributes.get(key)!r}. Score stores of one encoder, both raw or both enhanced by one model."
            )


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
    left = how.stand_ins(enrol)
    right = left if test.path == enrol.path else how.stand_ins(test)
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


def open_systems(
    systems: Mapping[str, Place], conditions: Sequence[str], enrolment: str
) -> dict[tuple[str, str], EmbeddingStore]:
    """Open the stores of all conditions and systems; StoreError unless all hold the same utterances in one space."""
    stores = {
        (condition, system): EmbeddingStore.open(folder / f"{condition}.zarr")
        for condition in dict.fromkeys([enrolment, *conditions])
        for system, folder in systems.items()
    }
    first = next(iter(stores.values()))
    for (_, system), store in stores.items():
        if store.utterances != first.utterances:
            raise StoreError(f"{store.path} and {first.path} hold other utterances. Extract both from one manifest.")
        check_comparable(stores[enrolment, system], store)
    return stores


def score_systems(
    systems: Mapping[str, Place],
    conditions: Sequence[str],
    enrolment: str,
    speakers: Mapping[str, str | None],
    manifest: Path,
    max_trials: int,
    bootstrap: int,
    seed: int,
    points: Sequence[OperatingPoint] = STANDARD,
    comparison: Name = "cosine",
    progress: Callable[[str], None] | None = None,
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[tuple[str, str], Roc]]:
    """Measure every system in every condition, enrolled on `enrolment`, on the same trials throughout.

    An utterance that failed in any of the stores is in no trial, so that systems and conditions can be compared.

    Args:
        systems: the folder of each system's stores, `<condition>.zarr`.
        conditions: which of them to score.
        enrolment: the condition of the enrolment side.
        speakers: speaker by utterance id.
        manifest: where the speakers were read from, for messages.
        max_trials: see `trials.all_pairs`.
        bootstrap: resamples of the confidence intervals.
        seed: of trials and bootstrap.
        points: where detection costs are measured.
        comparison: how two sides are compared.
        progress: called with the name of each condition as it is done.

    Returns:
        Metrics by condition and system (see `metrics.compare`), and ROCs by the same pair, thinned for plots.

    Raises:
        TrialError: there are no trials of one class.
        StoreError: a store is missing, damaged, or holds other utterances than the rest.
    """
    stores = open_systems(systems, conditions, enrolment)
    first = next(iter(stores.values()))
    usable = np.flatnonzero(np.all([store.status == OK for store in stores.values()], axis=0))
    labels = np.array(speakers_of(first.utterances, speakers, manifest))
    pairs = all_pairs(list(labels[usable]), max_trials, seed)
    assert pairs.target is not None  # since the speakers are known
    trials = Trials(usable[pairs.enrol], usable[pairs.test], pairs.target)
    _, numbers = np.unique(labels, return_inverse=True)
    sides = numbers[trials.enrol], numbers[trials.test]

    how = COMPARISONS[comparison]
    enrolled = {system: how.stand_ins(stores[enrolment, system]) for system in systems}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    rocs: dict[tuple[str, str], Roc] = {}
    for condition in conditions:
        scores = {
            system: how.score(enrolled[system], how.stand_ins(stores[condition, system]), trials) for system in systems
        }
        table[condition], curves = compare(scores, pairs.target, sides, points, bootstrap, seed)
        rocs |= {(condition, system): thin(roc) for system, roc in curves.items()}
        if progress:
            progress(condition)
    return table, rocs
