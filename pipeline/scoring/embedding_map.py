"""Two-dimensional map of a few speakers' utterances, clean and noisy, in the vector space of each system."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.scoring.sampling import read_unit_vectors
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.array_types import Float32Array, IntArray

SPEAKERS, UTTERANCES = 12, 6
"""Number of speakers on a map, and maximum number of utterances of each."""


class MapPoint(NamedTuple):
    """An utterance on the map of a system."""

    system: str
    condition: str
    utterance: str
    speaker: str
    x: float
    y: float


COLUMNS = MapPoint._fields


def map_embeddings(
    stores: Mapping[tuple[str, str], EmbeddingStore], clean: str, speakers: Mapping[str, str | None], seed: int
) -> list[MapPoint]:
    """Project unit vectors onto the first two principal axes of the clean ones, separately for each system.

    Stores are given as for `measure_distances`. Utterances of unknown speakers are not on the map.

    Raises:
        StoreError: a shard is damaged.
    """
    first = next(iter(stores.values()))
    usable = np.all([store.status == OK for store in stores.values()], axis=0)
    names = [speakers.get(name) if ok else None for name, ok in zip(first.utterances, usable, strict=True)]
    rows = choose_rows(names, seed)
    if len(rows) < 2:
        return []
    points: list[MapPoint] = []
    for system in dict.fromkeys(name for _, name in stores):
        units = read_unit_vectors(stores[clean, system], rows)
        centre, axes = units.mean(axis=0), principal_axes(units)
        for (condition, name), store in stores.items():
            if name == system:
                coordinates = (read_unit_vectors(store, rows) - centre) @ axes.T
                points += [
                    MapPoint(system, condition, first.utterances[row], names[row] or "", float(x), float(y))
                    for row, (x, y) in zip(rows, coordinates, strict=True)
                ]
    return points


def format_points(points: list[MapPoint]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a CSV with `COLUMNS`."""
    return ((*point[:4], f"{point.x:z.4f}", f"{point.y:z.4f}") for point in points)


def choose_rows(speakers: Sequence[str | None], seed: int) -> IntArray:
    """Draw a few utterances of a few speakers, and return their rows; speakers with several utterances come first."""
    rng = np.random.default_rng(seed)
    rows_by_speaker: dict[str, list[int]] = {}
    for row, name in enumerate(speakers):
        if name is not None:
            rows_by_speaker.setdefault(name, []).append(row)
    drawn = [list(rows_by_speaker)[number] for number in rng.permutation(len(rows_by_speaker))]
    drawn.sort(key=lambda name: len(rows_by_speaker[name]) < 2)  # the sort is stable, and keeps the order of the draw
    rows = [row for name in drawn[:SPEAKERS] for row in rng.permutation(rows_by_speaker[name])[:UTTERANCES]]
    return np.array(sorted(rows), dtype=np.int64)


def principal_axes(vectors: Float32Array) -> Float32Array:
    """Return the first two principal axes [2, D] of vectors [N, D]; the largest entry of each axis is positive.

    An axis that the vectors do not span is zero.
    """
    _, lengths, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    axes = axes[:2] * (lengths[:2, None] > 1e-6 * max(float(lengths[0]), 1e-6))
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    two = np.zeros((2, vectors.shape[1]), dtype=np.float32)
    two[: len(axes)] = axes * np.where(signs == 0, 1, signs)[:, None]
    return two
