"""How two utterances are compared: from crops to what stands for an utterance, and from that to scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.norm import cosines
from pipeline.pairwise import pairwise_scores
from pipeline.trials import Trials

Vectors = NDArray[np.float32]
Name = Literal["cosine", "pairwise"]

_SQUARED = (1e-15, 1e15)
"""Lengths between which the squares of float32 are neither lost nor infinite."""
_BLOCK = 512  # trials scored at a time: their vectors stay in the cache of the processor


@dataclass(frozen=True)
class Comparison:
    """A way to score trials; higher means more alike."""

    stand_ins: Callable[[Vectors], Vectors]
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


def distances(enrol: Vectors, test: Vectors) -> Vectors:
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
    "pairwise": Comparison(lambda units: units, pairwise_scores, distances),
}
"""By the names of `score.comparison`."""
