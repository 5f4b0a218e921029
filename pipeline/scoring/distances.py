"""Distances between the clean and noisy vectors of an utterance, by condition and system.

Each system has its own vector space, where the same distance means something else. For reference, distances between
clean vectors of the same speaker and of different speakers are measured, too: noise is harmless if it moves a vector by
less than the distance to another utterance of its speaker.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from pipeline.metrics.quantiles import PERCENTS, percentiles
from pipeline.scoring.sampling import read_unit_vectors, sample_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.array_types import Float32Array, IntArray

ITSELF, SAME, OTHER = "itself", "same speaker", "another speaker"
"""The kinds of pairs: a clean vector and its noisy one, or the clean vectors of two utterances."""

ROWS = 2048
"""Number of utterances that are sampled from a larger store."""


class ViewDistances(NamedTuple):
    """Quantiles of one distance measure over one kind of pairs of unit vectors."""

    condition: str
    system: str
    pair: str
    measure: str
    """`cosine`: 1 minus the cosine; `euclidean`: the length of the difference."""
    quantiles: tuple[float, ...]
    """The percentiles `PERCENTS`."""


COLUMNS = ("condition", "system", "pair", "measure", *(f"p{percent}" for percent in PERCENTS))


def measure_distances(
    stores: Mapping[tuple[str, str], EmbeddingStore], clean: str, speakers: Mapping[str, str | None], seed: int
) -> list[ViewDistances]:
    """Measure the distances of every system in every condition; large stores are sampled.

    Args:
        stores: stores by (condition, system), with the same utterances in the same order.
        clean: name of the clean condition.
        speakers: speaker by utterance id, where known; unknown speakers are in no pair of clean vectors.
        seed: seed of the sample and of the pairs.

    Raises:
        StoreError: a shard is damaged.
    """
    first = next(iter(stores.values()))
    rows = sample_rows(np.all([store.status == OK for store in stores.values()], axis=0), ROWS, seed)
    pairs = draw_speaker_pairs([speakers.get(first.utterances[row]) for row in rows], seed)
    distances: list[ViewDistances] = []
    for system in dict.fromkeys(name for _, name in stores):
        units = read_unit_vectors(stores[clean, system], rows)
        for pair, (left, right) in pairs.items():
            distances += _summarise(clean, system, pair, units[left], units[right])
        for (condition, name), store in stores.items():
            if name == system and condition != clean:
                distances += _summarise(condition, system, ITSELF, units, read_unit_vectors(store, rows))
    return distances


def format_distances(distances: list[ViewDistances]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a CSV with `COLUMNS`."""
    return ((*row[:4], *(f"{value:z.6f}" for value in row.quantiles)) for row in distances)


def draw_speaker_pairs(speakers: list[str | None], seed: int) -> dict[str, tuple[IntArray, IntArray]]:
    """Return pairs of positions by `SAME` and `OTHER` speaker; each position is on the left about once."""
    known = np.array([number for number, name in enumerate(speakers) if name is not None], dtype=np.int64)
    names = np.array([speakers[number] for number in known], dtype=str)
    order = np.argsort(names, kind="stable")
    partners = np.random.default_rng(seed).permutation(len(known))
    same = names[order[1:]] == names[order[:-1]]
    differ = names != names[partners]
    return {SAME: (known[order[:-1][same]], known[order[1:][same]]), OTHER: (known[differ], known[partners[differ]])}


def _summarise(condition: str, system: str, pair: str, left: Float32Array, right: Float32Array) -> list[ViewDistances]:
    if len(left) == 0:
        return []
    lengths = np.linalg.norm(left - right, axis=1).astype(np.float64)
    measures = {"cosine": lengths**2 / 2, "euclidean": lengths}  # the squared distance of unit vectors is 2 - 2 cos
    return [ViewDistances(condition, system, pair, name, percentiles(values)) for name, values in measures.items()]
