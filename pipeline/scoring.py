"""Score trials on stored embeddings, and measure what the scores are worth."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison import COMPARISONS, Name
from pipeline.enrolment import Models, Pooling, mean_of_units
from pipeline.errors import StoreError, TrialError
from pipeline.metrics import Histogram, Roc, compare, histogram, thin
from pipeline.operating_points import STANDARD, OperatingPoint
from pipeline.places import Place
from pipeline.store import OK, SPACE, EmbeddingStore
from pipeline.trials import Trials, all_pairs, speakers_of

REVISION = 3
"""Raise it when the same stores and trials give other figures: they are then measured anew."""

Measured = tuple[dict[str, dict[str, dict[str, Any]]], dict[tuple[str, str], Roc], dict[tuple[str, str], Histogram]]
"""Figures by row and system, and by the same pair ROCs and histograms."""


def check_comparable(enrol: EmbeddingStore, test: EmbeddingStore) -> None:
    """Raise StoreError unless the vectors of two stores live in one space."""
    for key in (*SPACE, "enhanced_by_sha256", "timestep"):
        if enrol.attributes.get(key) != test.attributes.get(key):
            raise StoreError(
                f"{enrol.path} and {test.path} cannot be compared: {key} is {enrol.attributes.get(key)!r} and"
                f" {test.attributes.get(key)!r}. Score stores of one encoder, both raw or both enhanced by one model."
            )


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
        models: enrolment models of the enrolment store's utterances; what failed is left out of them.
        pool: how the utterances of a model become its vector.
        comparison: how two sides are compared.

    Raises:
        StoreError: the stores cannot be compared, or are damaged.
        TrialError: no trials are left; or models are to be compared crop by crop, which takes single utterances.
    """
    if models is not None and comparison != "cosine":
        raise TrialError("enrolment models are one vector each: set score.comparison to cosine, or leave them out.")
    check_comparable(enrol, test)
    ok = enrol.status == OK
    enrolled = ok if models is None else models.usable(ok)
    kept = trials.keep(enrolled[trials.enrol] & (test.status[trials.test] == OK))
    if len(kept) == 0:
        raise TrialError(f"{test.path}: no trials are left, their utterances all failed. See its failures list.")
    how = COMPARISONS[comparison]
    enrolled_as = how.stand_ins(enrol)
    sides = enrolled_as if models is None else pool(enrolled_as, models), how.stand_ins(test)
    return kept, how.score(*sides, kept)


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
) -> Measured:
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
        Metrics by condition and system (see `metrics.compare`), and by the same pair ROCs, thinned for plots, and
        histograms.

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
    histograms: dict[tuple[str, str], Histogram] = {}
    for condition in conditions:
        scores = {
            system: how.score(enrolled[system], how.stand_ins(stores[condition, system]), trials) for system in systems
        }
        table[condition], curves = compare(scores, pairs.target, sides, points, bootstrap, seed)
        rocs |= {(condition, system): thin(roc) for system, roc in curves.items()}
        histograms |= {(condition, system): histogram(values, pairs.target) for system, values in scores.items()}
        if progress:
            progress(condition)
    return table, rocs, histograms
