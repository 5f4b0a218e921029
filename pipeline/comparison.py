"""How two utterances are compared: from a store to what stands for its utterances, and from that to scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.pairwise import pairwise_scores
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
    crops = store.read()[:, :, 0]
    with np.errstate(invalid="ignore"):  # what comes of vectors of zeros is found among the scores
        crops /= np.linalg.norm(crops, axis=2, keepdims=True)
    return crops


def utterance_vectors(store: EmbeddingStore) -> Vectors:
    """Return one unit vector an utterance [N, D]: the mean of its unit-length crops; NaN where it failed."""
    mean: Vectors = unit_crops(store).mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean


def cosine_scores(enrol: Vectors, test: Vectors, trials: Trials) -> NDArray[np.float32]:
    """Return the cosine [M] of every trial, from unit vectors [N, D] of both sides."""
    scores = np.empty(len(trials), dtype=np.float32)
    for start in range(0, len(trials), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores[part] = np.einsum("md,md->m", enrol[trials.enrol[part]], test[trials.test[part]])
    return scores


COMPARISONS: Mapping[Name, Comparison] = {
    "cosine": Comparison(utterance_vectors, cosine_scores),
    "pairwise": Comparison(unit_crops, pairwise_scores),
}
"""By the names of `score.comparison`."""
