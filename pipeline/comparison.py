"""How two utterances are compared: from a store to what stands for its utterances, and from that to scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.store import EmbeddingStore
from pipeline.trials import Trials

Vectors = NDArray[np.float32]
Name = Literal["cosine", "pairwise"]

_BLOCK = 512  # trials scored at a time: their vectors stay in the cache of the processor


@dataclass(frozen=True)
class Comparison:
    """A way to score trials; higher means more alike."""

    stand_ins: Callable[[EmbeddingStore], Vectors]
    """What stands for each utterance of a store [N, ...]; NaN where it failed."""
    score: Callable[[Vectors, Vectors, Trials], NDArray[np.float32]]
    """The score [M] of every trial, from what stands for the utterances of both sides."""


def unit_crops(store: EmbeddingStore) -> Vectors:
    """Return all crops of every utterance at unit length [N, crops, D]; NaN where it failed."""
    return _at_unit_length(store.read()[:, :, 0])


def utterance_vectors(store: EmbeddingStore) -> Vectors:
    """Return one unit vector an utterance [N, D]: the mean of its unit-length crops; NaN where it failed."""
    return mean_of_crops(store.read()[:, :, 0])


def mean_of_crops(crops: Vectors) -> Vectors:
    """Return the mean [N, D] of crops [N, crops, D] at unit length, itself at unit length; the crops are scaled."""
    return _at_unit_length(_at_unit_length(crops).mean(axis=1))


def _at_unit_length(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors


def cosine_scores(enrol: Vectors, test: Vectors, trials: Trials) -> NDArray[np.float32]:
    """Return the cosine [M] of every trial, from unit vectors [N, D] of both sides."""
    scores = np.empty(len(trials), dtype=np.float32)
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = np.einsum("md,md->m", enrol[trials.enrol[part]], test[trials.test[part]])
    return scores


def pairwise_scores(enrol: Vectors, test: Vectors, trials: Trials) -> NDArray[np.float32]:
    """Return minus the mean Euclidean distance [M] between all crops of one side and all of the other.

    So the paper scores (arXiv 2505.16798, after voxceleb_trainer), with ten crops a side. Of unit crops, the square of
    a distance is 2 - 2 cos; where two crops are all but the same, rounding leaves some 0.0005 of it.

    Args:
        enrol: unit crops [N, crops, D].
        test: unit crops [P, crops, D].
        trials: rows of both.
    """
    scores = np.empty(len(trials), dtype=np.float32)
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        cosines = np.matmul(enrol[trials.enrol[part]], test[trials.test[part]].swapaxes(1, 2))
        scores[part] = -np.sqrt(np.maximum(2 - 2 * cosines, 0)).mean(axis=(1, 2))
    return scores


COMPARISONS: Mapping[Name, Comparison] = {
    "cosine": Comparison(utterance_vectors, cosine_scores),
    "pairwise": Comparison(unit_crops, pairwise_scores),
}
"""By the names of `score.comparison`."""
