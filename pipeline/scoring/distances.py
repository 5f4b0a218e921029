"""How far noise moves embeddings: distances between an utterance's clean and noisy vectors, by condition and system.

Systems have spaces of their own, in which the same distance means different things, so distances between clean vectors
of the same speaker and of different speakers stand beside them: noise that moves a vector by less than another
utterance of its speaker does no harm.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from pipeline.data.trials.table import Index
from pipeline.metrics.quantiles import PERCENTS
from pipeline.scoring.comparison import Vectors
from pipeline.scoring.sampling import read_vectors, sample_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK

ITSELF, SAME, OTHER = "itself", "same speaker", "another speaker"
"""What is compared: a clean vector with its noisy one; or with the clean one of another utterance."""

ROWS = 2048
"""Utterances that stand for a larger store."""


class ViewDistances(NamedTuple):
    """Quantiles of one kind of distance between one kind of pairs, of unit vectors."""

    condition: str
    system: str
    pair: str
    measure: str
    """`cosine`: 1 minus the cosine; `euclidean`: the length of the difference."""
    quantiles: tuple[float, ...]
    """At `PERCENTS`."""


COLUMNS = ("condition", "system", "pair", "measure", *(f"p{percent}" for percent in PERCENTS))


def measure_distances(
    stores: Mapping[tuple[str, str], EmbeddingStore], clean: str, speakers: Mapping[str, str | None], seed: int
) -> list[ViewDistances]:
    """Measure the distances of every system in every condition; of a large store, those of a random sample.

    Args:
        stores: by (condition, system), all of the same utterances in the same order, the clean condition among them.
        clean: the name of that.
        speakers: speaker by utterance id, where known; without, there are no pairs of clean vectors.
        seed: of the sample and of the pairs.

    Raises:
        StoreError: a shard is damaged.
    """
    first = next(iter(stores.values()))
    rows = sample_rows(np.all([store.status == OK for store in stores.values()], axis=0), ROWS, seed)
    pairs = pairs_of([speakers.get(first.utterances[row]) for row in rows], seed)
    found: list[ViewDistances] = []
    for system in dict.fromkeys(name for _, name in stores):
        at_rest = read_vectors(stores[clean, system], rows)
        for pair, (left, right) in pairs.items():
            found += _quantiles(clean, system, pair, at_rest[left], at_rest[right])
        for (condition, name), store in stores.items():
            if name == system and condition != clean:
                found += _quantiles(condition, system, ITSELF, at_rest, read_vectors(store, rows))
    return found


def cells(found: list[ViewDistances]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a CSV of `COLUMNS`."""
    return ((*row[:4], *(f"{value:.6f}" for value in row.quantiles)) for row in found)


def pairs_of(speakers: list[str | None], seed: int) -> dict[str, tuple[Index, Index]]:
    """Return pairs of positions of the same speaker and of different ones, each position about once on the left."""
    known = np.array([number for number, name in enumerate(speakers) if name is not None], dtype=np.int64)
    names = np.array([speakers[number] for number in known], dtype=str)
    order = np.argsort(names, kind="stable")
    drawn = np.random.default_rng(seed).permutation(len(known))
    same = names[order[1:]] == names[order[:-1]]
    differ = names != names[drawn]
    return {
        SAME: (known[order[:-1][same]], known[order[1:][same]]),
        OTHER: (known[differ], known[drawn[differ]]),
    }


def _quantiles(condition: str, system: str, pair: str, left: Vectors, right: Vectors) -> list[ViewDistances]:
    if len(left) == 0:
        return []
    lengths = np.linalg.norm(left - right, axis=1).astype(np.float64)
    measured = {"cosine": lengths**2 / 2, "euclidean": lengths}  # of unit vectors, the square is 2 - 2 cos
    return [
        ViewDistances(condition, system, pair, measure, tuple(map(float, np.percentile(values, PERCENTS))))
        for measure, values in measured.items()
    ]
