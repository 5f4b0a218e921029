"""The cohort: speakers outside the trials, for score normalisation and for training back-ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import TrialError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.zeros import require_directions
from pipeline.utils.array_types import Float32Array, IntArray
from pipeline.utils.paths import Place


@dataclass(frozen=True)
class Cohort:
    """Raw embeddings of utterances that are in no trial; if there are several views, the first is clean."""

    path: Place
    encoder: Mapping[str, Any]
    """The identity of the encoder, see `EmbeddingStore.encoder`."""
    values: Float32Array
    """[K, crops, views, D]."""
    utterances: tuple[str, ...]
    speakers: tuple[str | None, ...]
    failed: tuple[str, ...] = ()
    """Utterances of the store that failed, and are not in the cohort."""

    def select(self, rows: IntArray) -> "Cohort":
        """Return some of the utterances."""
        names, speakers = (tuple(each[row] for row in rows) for each in (self.utterances, self.speakers))
        return Cohort(self.path, self.encoder, self.values[rows], names, speakers)

    def speaker_numbers(self) -> IntArray:
        """Return the speaker number of each utterance [K].

        Raises:
            TrialError: a speaker is unknown, or all are the same.
        """
        if None in self.speakers or len(set(self.speakers)) < 2:
            raise TrialError(
                f"{self.path}: PLDA, calibration and cohorts of speakers need the speaker of every utterance, and at"
                " least two speakers. Give its manifest, with the speaker column."
            )
        return np.asarray(np.unique(np.array(self.speakers), return_inverse=True)[1], dtype=np.int64)

    def split_speakers(self, seed: int) -> tuple["Cohort", "Cohort"]:
        """Split the speakers in two halves: one to train systems, the other to calibrate them."""
        numbers = self.speaker_numbers()
        order = np.random.default_rng(seed).permutation(numbers.max() + 1)
        first = np.isin(numbers, order[: len(order) // 2])
        return self.select(np.flatnonzero(first)), self.select(np.flatnonzero(~first))


def read_cohort(
    store: EmbeddingStore, speakers: Mapping[str, str | None], corpora: Mapping[str, str | None] | None = None
) -> Cohort:
    """Read the encoded utterances of a store.

    Args:
        store: raw embeddings.
        speakers: speaker by utterance.
        corpora: corpus by utterance: only those of the first one's corpus are read, because the tested speech is of
            that corpus. None: all.

    Raises:
        StoreError: the store is damaged, or holds enhanced embeddings or a vector of zeros.
        TrialError: the store has fewer than two encoded utterances.
    """
    store.check_raw()
    wanted = (corpora or {}).get(store.utterances[0])
    rows = [row for row in store.ok if not corpora or corpora.get(store.utterances[row]) == wanted]
    if len(rows) < 2:
        raise TrialError(f"{store.path}: has {len(rows)} encoded utterances, but a cohort needs at least two.")
    names = tuple(store.utterances[row] for row in rows)
    known = tuple(speakers.get(name) for name in names)
    failed = tuple(store.utterances[row] for row in np.flatnonzero(store.status != OK))
    values = store.read()[rows]
    require_directions(store, rows, values)
    return Cohort(store.path, store.encoder(), values, names, known, failed)


def count_overlap(cohort: Cohort, utterances: Sequence[str], speakers: Mapping[str, str | None]) -> tuple[int, int]:
    """Return the numbers of utterances and of speakers that the cohort shares with the trials."""
    shared = set(cohort.utterances) & set(utterances)
    tested = {speakers.get(name) for name in utterances} - {None}
    return len(shared), len(set(cohort.speakers) & tested)
