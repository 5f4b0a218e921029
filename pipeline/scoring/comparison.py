"""How two utterances are compared: from crops to what stands for an utterance, and from that to scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import Index, Trials
from pipeline.scoring.backends.norm import cosines

Vectors = NDArray[np.float32]
Name = Literal["cosine", "pairwise"]

_SQUARED = (1e-15, 1e15)
"""Lengths between which the squares of float32 are neither lost nor infinite."""
_BLOCK = 512  # trials scored at a time: their vectors stay in the cache of the processor
_PAIRWISE_BLOCK = 64  # trials at a time, so that the crops of both sides stay in the processor's cache


_SIDE = 64  # utterances on either side of a tile, whose distances all but stay there as well


_DENSE = 0.45  # share of a tile's pairs that must be wanted for it to be cheaper than its trials one by one


def pairwise_scores(enrol: Vectors, test: Vectors, trials: Trials) -> NDArray[np.float32]:
    """Return minus the mean Euclidean distance [M] between all crops of one side and all of the other.

    So the paper scores (arXiv 2505.16798, after voxceleb_trainer), with ten crops a side. Of unit crops, the square of
    a distance is 2 - 2 cos; where two crops are all but the same, rounding leaves some 0.0005 of it. Where the trials
    are most of all pairs of some utterances, all of these are taken by one matrix product; so the other trials of a
    call may make a difference in the last bits, and nothing else does.

    Args:
        enrol: unit crops [N, crops, D].
        test: unit crops [P, crops, D].
        trials: rows of both.
    """
    lefts, left = _used(trials.enrol, len(enrol))
    rights, right = _used(trials.test, len(test))
    across = len(rights) // _SIDE + 1
    tiles = left // _SIDE * across + right // _SIDE
    order = np.argsort(tiles)
    tiles = tiles[order]
    cuts = np.flatnonzero(np.diff(tiles, prepend=-1, append=-1))
    starts, counts = cuts[:-1], np.diff(cuts)
    first, second = (_SIDE * place for place in divmod(tiles[starts], across))
    sizes = np.minimum(len(lefts) - first, _SIDE) * np.minimum(len(rights) - second, _SIDE)
    dense = counts >= _DENSE * sizes
    scores = np.empty(len(trials), dtype=np.float32)
    for tile in np.flatnonzero(dense):
        part = order[starts[tile] : starts[tile] + counts[tile]]
        top, side = first[tile], second[tile]
        table = _of_all(enrol[lefts[top : top + _SIDE]], test[rights[side : side + _SIDE]])
        scores[part] = table[left[part] - top, right[part] - side]
    _of_each(enrol, test, trials, order[np.repeat(~dense, counts)], scores)
    return scores


def _used(rows: Index, count: int) -> tuple[Index, Index]:
    """Return which of `count` rows are named [U], in order, and the place of each [M] among them."""
    used = np.zeros(count, dtype=np.bool_)
    used[rows] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[rows]


def _of_all(enrol: Vectors, test: Vectors) -> Vectors:
    """Return the scores [A, B] of all pairs of unit crops [A, crops, D] and [B, crops, D]."""
    # Crops come first, so that what is summed up lies in long rows.
    left, right = (np.swapaxes(side, 0, 1).reshape(-1, side.shape[2]) for side in (enrol, test))
    distances = np.matmul(-2 * left, right.T)
    distances += 2
    np.maximum(distances, 0, out=distances)
    np.sqrt(distances, out=distances)
    sums: Vectors = distances.reshape(enrol.shape[1], -1).sum(axis=0).reshape(len(enrol), test.shape[1], -1).sum(axis=1)
    return sums / np.float32(-enrol.shape[1] * test.shape[1])


def _of_each(enrol: Vectors, test: Vectors, trials: Trials, chosen: Index, scores: NDArray[np.float32]) -> None:
    """Put the scores of the chosen trials [K] into their places [M]."""
    left, right = (np.empty((_PAIRWISE_BLOCK, *side.shape[1:]), dtype=np.float32) for side in (enrol, test))
    mean = np.full(enrol.shape[1] * test.shape[1], -1 / (enrol.shape[1] * test.shape[1]), dtype=np.float32)
    for start in range(0, len(chosen), _PAIRWISE_BLOCK):
        part = chosen[start : start + _PAIRWISE_BLOCK]
        count = len(part)
        enrol.take(trials.enrol[part], axis=0, out=left[:count], mode="clip")  # other modes copy once more
        test.take(trials.test[part], axis=0, out=right[:count], mode="clip")
        distances = np.matmul(left[:count], right[:count].swapaxes(1, 2))
        distances *= -2
        distances += 2
        np.maximum(distances, 0, out=distances)
        np.sqrt(distances, out=distances)
        scores[part] = distances.reshape(count, -1) @ mean


@dataclass(frozen=True)
class Comparison:
    """A way to score trials; higher means more alike."""

    represent: Callable[[Vectors], Vectors]
    """What stands for each utterance [N, ...], from unit crops [N, crops, D]; NaN where it failed."""
    score: Callable[[Vectors, Vectors, Trials], NDArray[np.float32]]
    """The score [M] of every trial, from what stands for the utterances of both sides."""
    matrix: Callable[[Vectors, Vectors], Vectors]
    """The scores [N, P] of all of one side against all of the other."""


def unit_crops(crops: Vectors) -> Vectors:
    """Return crops [N, crops, D] at unit length; NaN where an utterance failed."""
    with np.errstate(invalid="ignore", over="ignore"):  # what comes of vectors of zeros is found among the scores
        norms = np.linalg.norm(crops, axis=2, keepdims=True)
        if ((norms < _SQUARED[0]) | (norms > _SQUARED[1])).any():
            crops = moderate(crops)
            norms = np.linalg.norm(crops, axis=2, keepdims=True)
        units: Vectors = crops / norms
    return units


def moderate(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return vectors [..., D] scaled by powers of two, which keeps directions to the bit, to peaks of 0.5 to 1."""
    peak = np.abs(vectors).max(axis=-1, keepdims=True)
    exponent = np.where(np.isfinite(peak), np.frexp(peak)[1], 0)
    scaled: NDArray[Any] = np.ldexp(vectors, -exponent)
    return scaled


def mean_units(units: Vectors) -> Vectors:
    """Return one unit vector an utterance [N, D]: the mean of its unit crops [N, crops, D]; NaN where it failed."""
    mean: Vectors = units.mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean


def crop_distances(enrol: Vectors, test: Vectors) -> Vectors:
    """Return minus the mean distances [N, P] between all unit crops of [N, crops, D] and all of [P, crops, D]."""
    (rows, here, dim), (columns, there, _) = enrol.shape, test.shape
    result = np.empty((rows, columns), dtype=np.float32)
    flat = test.reshape(-1, dim).T
    for row, crops in enumerate(enrol):
        squares = np.maximum(2 - 2 * (crops @ flat), 0)
        result[row] = -np.sqrt(squares, out=squares).reshape(here, columns, there).mean(axis=(0, 2))
    return result


def cosine_scores(enrol: Vectors, test: Vectors, trials: Trials) -> NDArray[np.float32]:
    """Return the cosine [M] of every trial, from unit vectors [N, D] of both sides."""
    scores = np.empty(len(trials), dtype=np.float32)
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = np.einsum("md,md->m", enrol[trials.enrol[part]], test[trials.test[part]])
    return scores


COMPARISONS: Mapping[str, Comparison] = {
    "cosine": Comparison(mean_units, cosine_scores, cosines),
    "pairwise": Comparison(lambda units: units, pairwise_scores, crop_distances),
}
"""By the names of `score.comparison`."""
