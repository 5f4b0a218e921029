"""Facts about the utterances of stores, from a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.manifest import Utterance, read_manifest
from pipeline.errors import UnknownUtteranceError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.array_types import IntArray
from pipeline.utils.similar_ids import suggest_fix


@dataclass(frozen=True)
class Utterances:
    """Ids, speakers, durations, genders, ages and corpora of utterances, in the order of the stores."""

    ids: tuple[str, ...]
    speakers: tuple[str | None, ...]
    seconds: tuple[float | None, ...]
    genders: tuple[str | None, ...] = ()
    ages: tuple[float | None, ...] = ()
    corpora: tuple[str | None, ...] = ()

    def numbers(self) -> IntArray:
        """Return the number of each utterance's speaker [N], -1 if unknown."""
        known: dict[str, int] = {}
        return np.array([-1 if name is None else known.setdefault(name, len(known)) for name in self.speakers])


def select_utterances(ids: Sequence[str], manifest: Sequence[Utterance], path: Path) -> Utterances:
    """Look up the utterances of stores in a manifest.

    Raises:
        UnknownUtteranceError: the manifest lacks one.
    """
    rows = {row.utterance: row for row in manifest}
    for name in ids:
        if name not in rows:
            advice = suggest_fix([name], list(rows), "the store", "the manifest") or "Extract it again."
            raise UnknownUtteranceError(f"{path}: has no utterance {name!r}, which the store holds. {advice}")
    known = [rows[name] for name in ids]
    return Utterances(
        tuple(ids),
        tuple(row.speaker for row in known),
        tuple(row.seconds for row in known),
        tuple(row.gender for row in known),
        tuple(row.age for row in known),
        tuple(row.corpus for row in known),
    )


def read_speakers(store: EmbeddingStore, path: Path) -> dict[str, str | None]:
    """Return the speaker of each utterance of a store, from a manifest.

    Raises:
        ManifestError: the manifest is malformed.
        UnknownUtteranceError: the manifest lacks one.
    """
    return read_speakers_and_corpora(store, path)[0]


def read_speakers_and_corpora(store: EmbeddingStore, path: Path) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Return the speaker and the corpus of each utterance of a store, from a manifest; see `read_speakers`."""
    found = select_utterances(store.utterances, read_manifest(path), path)
    speakers, corpora = (dict(zip(found.ids, names, strict=True)) for names in (found.speakers, found.corpora))
    return speakers, corpora
