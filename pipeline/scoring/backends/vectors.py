"""What is done to vectors before they are scored: the mean of other speakers is taken off, two versions are joined."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, TrialError

Vectors = NDArray[np.floating]


def unit(vectors: Vectors) -> Vectors:
    """Return vectors [..., D] at unit length; zeros stay zeros, NaN stays NaN."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), dtype=vectors.dtype)


def mean_of_cohort(vectors: Vectors) -> Vectors:
    """Return the mean [D] of a cohort's vectors [N, D] at unit length; what failed is left out.

    Raises:
        TrialError: nothing is left.
    """
    kept = vectors[np.isfinite(vectors).all(axis=1)]
    if len(kept) == 0:
        raise TrialError("the cohort has no utterances, or all of them failed: there is no mean to subtract.")
    return np.asarray(unit(kept).mean(axis=0, dtype=np.float64), dtype=vectors.dtype)


def centred(vectors: Vectors, mean: Vectors) -> Vectors:
    """Return vectors [..., D] at unit length, minus the mean [D] of a cohort's, again at unit length.

    What all embeddings of a domain have in common says nothing of the speaker, but adds to every cosine.
    """
    return unit(unit(vectors) - mean)


def ensembled(raw: Vectors, enhanced: Vectors, weight: float = 0.5) -> Vectors:
    """Return (1 - weight) raw + weight enhanced [..., D], both at unit length, and so is the result.

    With the weight of 0.5 it is the paper's feature ensemble, original + enhanced (arXiv 2505.16798).

    Args:
        raw: original embeddings [..., D].
        enhanced: the same, enhanced [..., D].
        weight: of the enhanced ones, 0 to 1.

    Raises:
        ConfigError: the weight is not in 0 to 1.
        TrialError: the shapes differ.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"the enhanced embeddings cannot have a weight of {weight:g} in an ensemble: take 0 to 1.")
    if raw.shape != enhanced.shape:
        raise TrialError(f"embeddings {raw.shape} and their enhanced versions {enhanced.shape} cannot be added up.")
    return unit((1 - weight) * unit(raw) + weight * unit(enhanced))
