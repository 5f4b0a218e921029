"""A map of embeddings in two dimensions: a few speakers' utterances, clean and noisy, in the space of each system."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.data.trials.table import Index
from pipeline.scoring.comparison import Vectors
from pipeline.scoring.sampling import read_vectors
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK

SPEAKERS, UTTERANCES = 12, 6
"""How many speakers are on a map, and at most how many utterances of each."""


class MapPoint(NamedTuple):
    """An utterance on the map of a system."""

    system: str
    condition: str
    utterance: str
    speaker: str
    x: float
    y: float


COLUMNS = MapPoint._fields


def embedding_map(
    stores: Mapping[tuple[str, str], EmbeddingStore], clean: str, speakers: Mapping[str, str | None], seed: int
) -> list[MapPoint]:
    """Return where unit vectors lie on the first two principal axes of the clean ones, of each system by itself.

    Args:
        stores: by (condition, system), all of the same utterances in the same order, the clean condition among them.
        clean: the name of that.
        speakers: speaker by utterance id; utterances of unknown speakers are not on the map.
        seed: of the draw of speakers and utterances.

    Raises:
        StoreError: a shard is damaged.
    """
    first = next(iter(stores.values()))
    usable = np.all([store.status == OK for store in stores.values()], axis=0)
    names = [speakers.get(name) if ok else None for name, ok in zip(first.utterances, usable, strict=True)]
    rows = chosen_rows(names, seed)
    if len(rows) < 2:
        return []
    points: list[MapPoint] = []
    for system in dict.fromkeys(name for _, name in stores):
        at_rest = read_vectors(stores[clean, system], rows)
        centre, axes = at_rest.mean(axis=0), principal_axes(at_rest)
        for (condition, name), store in stores.items():
            if name == system:
                places = (read_vectors(store, rows) - centre) @ axes.T
                points += [
                    MapPoint(system, condition, first.utterances[row], names[row] or "", float(x), float(y))
                    for row, (x, y) in zip(rows, places, strict=True)
                ]
    return points


def cells(points: list[MapPoint]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a CSV of `COLUMNS`."""
    return ((*point[:4], f"{point.x:.4f}", f"{point.y:.4f}") for point in points)


def chosen_rows(speakers: Sequence[str | None], seed: int) -> Index:
    """Return the rows of a few random utterances of a few random speakers, those of several utterances first."""
    rng = np.random.default_rng(seed)
    of: dict[str, list[int]] = {}
    for row, name in enumerate(speakers):
        if name is not None:
            of.setdefault(name, []).append(row)
    drawn = [list(of)[number] for number in rng.permutation(len(of))]
    drawn.sort(key=lambda name: len(of[name]) < 2)  # stable: otherwise in the order of the draw
    rows = [row for name in drawn[:SPEAKERS] for row in rng.permutation(of[name])[:UTTERANCES]]
    return np.array(sorted(rows), dtype=np.int64)


def principal_axes(vectors: Vectors) -> Vectors:
    """Return the first two principal axes [2, D] of vectors [N, D]; each points to where its largest entry is positive.

    Along an axis that the vectors do not span, there is nothing: it is zero.
    """
    _, lengths, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    axes = axes[:2] * (lengths[:2, None] > 1e-6 * max(float(lengths[0]), 1e-6))
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    two = np.zeros((2, vectors.shape[1]), dtype=np.float32)
    two[: len(axes)] = axes * np.where(signs == 0, 1, signs)[:, None]
    return two
