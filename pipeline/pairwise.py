"""Distances between all crops of two utterances, for many trials at the speed of matrix products."""

import numpy as np
from numpy.typing import NDArray

from pipeline.trials import Index, Trials

Vectors = NDArray[np.float32]

_BLOCK = 64  # trials at a time, so that the crops of both sides stay in the processor's cache
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
    left, right = (np.empty((_BLOCK, *side.shape[1:]), dtype=np.float32) for side in (enrol, test))
    mean = np.full(enrol.shape[1] * test.shape[1], -1 / (enrol.shape[1] * test.shape[1]), dtype=np.float32)
    for start in range(0, len(chosen), _BLOCK):
        part = chosen[start : start + _BLOCK]
        count = len(part)
        enrol.take(trials.enrol[part], axis=0, out=left[:count], mode="clip")  # other modes copy once more
        test.take(trials.test[part], axis=0, out=right[:count], mode="clip")
        distances = np.matmul(left[:count], right[:count].swapaxes(1, 2))
        distances *= -2
        distances += 2
        np.maximum(distances, 0, out=distances)
        np.sqrt(distances, out=distances)
        scores[part] = distances.reshape(count, -1) @ mean
