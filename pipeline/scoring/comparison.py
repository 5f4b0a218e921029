"""Comparisons of two utterances: from crops to a representation of each utterance, and from these to scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import Trials
from pipeline.scoring.backends.norm import cosine_matrix
from pipeline.utils.array_types import Float32Array, IntArray

ScoreFunction = Callable[[Float32Array, Float32Array, Trials], Float32Array]
"""A function that returns the score [M] of every trial, from the representations of both sides' utterances."""

_SAFE_NORMS = (1e-15, 1e15)
"""The range of norms whose squares neither underflow nor overflow in float32."""
_BLOCK = 512  # trials scored at a time: their vectors stay in the processor's cache
_PAIRWISE_BLOCK = 64  # trials scored at a time: the crops of both sides stay in the processor's cache
_TILE = 64  # utterances on each side of a tile: nearly all of its distances stay in the cache, too
_DENSE = 0.45  # share of a tile's pairs above which scoring all of them is faster than scoring each trial


def pairwise_scores(enrol: Float32Array, test: Float32Array, trials: Trials) -> Float32Array:
    """Return minus the mean Euclidean distance [M] between all unit crops [N, crops, D] of one side and of the other.

    This is the paper's score (arXiv 2505.16798, after voxceleb_trainer), with ten crops on each side. The squared
    distance of unit crops is 2 - 2 cos; if two crops are nearly identical, rounding leaves about 0.0005 of it. If
    trials cover most pairs of some utterances, one matrix product computes all pairs of these, so the other trials of
    a call can change the last bits of a score, and nothing more.
    """
    enrol_used, left = _compact_rows(trials.enrol, len(enrol))
    test_used, right = _compact_rows(trials.test, len(test))
    across = len(test_used) // _TILE + 1
    tiles = left // _TILE * across + right // _TILE
    order = np.argsort(tiles)
    tiles = tiles[order]
    cuts = np.flatnonzero(np.diff(tiles, prepend=-1, append=-1))
    starts, counts = cuts[:-1], np.diff(cuts)
    tops, sides = (_TILE * place for place in divmod(tiles[starts], across))
    sizes = np.minimum(len(enrol_used) - tops, _TILE) * np.minimum(len(test_used) - sides, _TILE)
    dense = counts >= _DENSE * sizes
    scores = np.empty(len(trials), dtype=np.float32)
    for tile in np.flatnonzero(dense):
        part = order[starts[tile] : starts[tile] + counts[tile]]
        top, side = tops[tile], sides[tile]
        matrix = _score_all_pairs(enrol[enrol_used[top : top + _TILE]], test[test_used[side : side + _TILE]])
        scores[part] = matrix[left[part] - top, right[part] - side]
    _score_single_trials(enrol, test, trials, order[np.repeat(~dense, counts)], scores)
    return scores


def _compact_rows(rows: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Return the distinct rows [U] among `count` in order, and the position of each row [M] among them."""
    used = np.zeros(count, dtype=np.bool_)
    used[rows] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[rows]


def _score_all_pairs(enrol: Float32Array, test: Float32Array) -> Float32Array:
    """Return the scores [A, B] of all pairs of unit crops [A, crops, D] and [B, crops, D]."""
    # Crops come first, so that sums run along long rows.
    left, right = (np.swapaxes(side, 0, 1).reshape(-1, side.shape[2]) for side in (enrol, test))
    distances = np.matmul(-2 * left, right.T)
    distances += 2
    np.maximum(distances, 0, out=distances)
    np.sqrt(distances, out=distances)
    by_test_crop = distances.reshape(enrol.shape[1], -1).sum(axis=0).reshape(len(enrol), test.shape[1], -1)
    sums: Float32Array = by_test_crop.sum(axis=1)
    return sums / np.float32(-enrol.shape[1] * test.shape[1])


def _score_single_trials(
    enrol: Float32Array, test: Float32Array, trials: Trials, chosen: IntArray, scores: Float32Array
) -> None:
    """Write the scores of the chosen trials [K] into `scores` [M]."""
    left, right = (np.empty((_PAIRWISE_BLOCK, *side.shape[1:]), dtype=np.float32) for side in (enrol, test))
    mean = np.full(enrol.shape[1] * test.shape[1], -1 / (enrol.shape[1] * test.shape[1]), dtype=np.float32)
    for start in range(0, len(chosen), _PAIRWISE_BLOCK):
        part = chosen[start : start + _PAIRWISE_BLOCK]
        count = len(part)
        enrol.take(trials.enrol[part], axis=0, out=left[:count], mode="clip")  # mode="raise" would copy once more
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

    represent: Callable[[Float32Array], Float32Array]
    """Function that returns the representation of each utterance [N, ...] from unit crops [N, crops, D]; NaN where it
    failed."""
    score: ScoreFunction
    matrix: Callable[[Float32Array, Float32Array], Float32Array]
    """Function that returns the scores [N, P] of all of one side against all of the other."""


def unit_crops(crops: Float32Array) -> Float32Array:
    """Return crops [N, crops, D] at unit length; NaN where an utterance failed."""
    with np.errstate(invalid="ignore", over="ignore"):  # zero vectors give NaN, which the check of the scores reports
        norms = np.linalg.norm(crops, axis=2, keepdims=True)
        if ((norms < _SAFE_NORMS[0]) | (norms > _SAFE_NORMS[1])).any():
            crops = scale_peaks(crops)
            norms = np.linalg.norm(crops, axis=2, keepdims=True)
        units: Float32Array = crops / norms
    return units


def scale_peaks(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return vectors [..., D] with peaks of 0.5 to 1, scaled by powers of two, which keep directions to the bit."""
    peak = np.abs(vectors).max(axis=-1, keepdims=True)
    exponent = np.where(np.isfinite(peak), np.frexp(peak)[1], 0)
    scaled: NDArray[Any] = np.ldexp(vectors, -exponent)
    return scaled


def mean_units(units: Float32Array) -> Float32Array:
    """Return one unit vector for each utterance [N, D], the mean of its unit crops [N, crops, D]; NaN if it failed."""
    mean: Float32Array = units.mean(axis=1)
    with np.errstate(invalid="ignore"):  # crops that cancel each other give NaN, which the check of the scores reports
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean


def pairwise_matrix(enrol: Float32Array, test: Float32Array) -> Float32Array:
    """Return minus the mean distances [N, P] between all unit crops of [N, crops, D] and all of [P, crops, D]."""
    (rows, enrol_crops, dim), (columns, test_crops, _) = enrol.shape, test.shape
    result = np.empty((rows, columns), dtype=np.float32)
    flat = test.reshape(-1, dim).T
    for row, crops in enumerate(enrol):
        squares = np.maximum(2 - 2 * (crops @ flat), 0)
        result[row] = -np.sqrt(squares, out=squares).reshape(enrol_crops, columns, test_crops).mean(axis=(0, 2))
    return result


def cosine_scores(enrol: Float32Array, test: Float32Array, trials: Trials) -> Float32Array:
    """Return the cosine [M] of every trial, from unit vectors [N, D] of both sides."""
    scores = np.empty(len(trials), dtype=np.float32)
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = np.einsum("md,md->m", enrol[trials.enrol[part]], test[trials.test[part]])
    return scores


COMPARISONS: Mapping[str, Comparison] = {
    "cosine": Comparison(mean_units, cosine_scores, cosine_matrix),
    "pairwise": Comparison(lambda units: units, pairwise_scores, pairwise_matrix),
}
"""The comparisons by their names in `score.comparison`."""
