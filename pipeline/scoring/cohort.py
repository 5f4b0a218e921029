"""The cohort: speakers apart from those of the trials, by whom scores are normalised and back-ends are trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import Index
from pipeline.errors import TrialError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.paths import Place


@dataclass(frozen=True)
class Cohort:
    """Raw embeddings of utterances that are in no trial; where views differ, the first is clean."""

    path: Place
    encoder: Mapping[str, Any]
    """What tells its vectors from another encoder's, see `EmbeddingStore.encoder`."""
    values: NDArray[np.float32]
    """[K, crops, views, D]."""
    utterances: tuple[str, ...]
    speakers: tuple[str | None, ...]

    def part(self, rows: Index) -> "Cohort":
        """Return some of the utterances."""
        names, speakers = (tuple(each[row] for row in rows) for each in (self.utterances, self.speakers))
        return Cohort(self.path, self.encoder, self.values[rows], names, speakers)

    def numbers(self) -> Index:
        """Return a number a speaker for each utterance [K].

        Raises:
            TrialError: not all speakers are known, or all are the same.
        """
        if None in self.speakers or len(set(self.speakers)) < 2:
            raise TrialError(
                f"{self.path}: PLDA, calibration and cohorts of speakers need the speakers of all its utterances, two"
                " or more. Give its manifest, with the speaker column."
            )
        return np.asarray(np.unique(np.array(self.speakers), return_inverse=True)[1], dtype=np.int64)

    def halves(self, seed: int) -> tuple["Cohort", "Cohort"]:
        """Split the speakers in two: what is calibrated must not have been trained on the same ones."""
        numbers = self.numbers()
        order = np.random.default_rng(seed).permutation(numbers.max() + 1)
        first = np.isin(numbers, order[: len(order) // 2])
        return self.part(np.flatnonzero(first)), self.part(np.flatnonzero(~first))


def read_cohort(store: EmbeddingStore, speakers: Mapping[str, str | None]) -> Cohort:
    """Read all utterances of a store that were encoded.

    Raises:
        StoreError: the store is damaged, or holds enhanced embeddings.
        TrialError: none were.
    """
    store.check_raw()
    if len(store.ok) < 2:
        raise TrialError(f"{store.path}: {len(store.ok)} encoded utterances make no cohort; two are the least.")
    names = tuple(store.utterances[row] for row in store.ok)
    known = tuple(speakers.get(name) for name in names)
    return Cohort(store.path, store.encoder(), store.read()[store.ok], names, known)


def overlap(cohort: Cohort, utterances: Sequence[str], speakers: Mapping[str, str | None]) -> tuple[int, int]:
    """Return how many utterances, and how many speakers, of the cohort are in the trials as well."""
    shared = set(cohort.utterances) & set(utterances)
    tested = {speakers.get(name) for name in utterances} - {None}
    return len(shared), len(set(cohort.speakers) & tested)
