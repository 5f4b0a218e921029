"""Operations on vectors before they are scored: length normalisation, centring, ensembles, whitening."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from pipeline.errors import ConfigError, TrialError
from pipeline.utils.array_types import Float64Array, FloatArray


def normalise_length(vectors: FloatArray) -> FloatArray:
    """Return vectors [..., D] at unit length; zeros stay zeros, NaN stays NaN."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), dtype=vectors.dtype)


def average_cohort(vectors: FloatArray) -> FloatArray:
    """Return the mean [D] of a cohort's vectors [N, D] at unit length, without failed ones.

    Raises:
        TrialError: all vectors failed.
    """
    kept = vectors[np.isfinite(vectors).all(axis=1)]
    if len(kept) == 0:
        raise TrialError("the cohort has no utterances, or all of them failed: there is no mean to subtract.")
    return np.asarray(normalise_length(kept).mean(axis=0, dtype=np.float64), dtype=vectors.dtype)


def centre(vectors: FloatArray, mean: FloatArray) -> FloatArray:
    """Return vectors [..., D] at unit length, minus the mean [D] of a cohort's, again at unit length.

    The component that all embeddings of a domain share carries no speaker information, but raises every cosine.
    """
    return normalise_length(normalise_length(vectors) - mean)


def ensemble(raw: FloatArray, enhanced: FloatArray, weight: float = 0.5, own_lengths: bool = False) -> FloatArray:
    """Return (1 - weight) raw + weight enhanced [..., D] at unit length; so are both terms, unless `own_lengths`.

    With weight 0.5 and `own_lengths`, this is the feature ensemble of the paper's code, original + enhanced (arXiv
    2505.16798).

    Raises:
        ConfigError: the weight is outside of 0 to 1.
        TrialError: the shapes differ.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"the enhanced embeddings cannot have a weight of {weight:g} in an ensemble: take 0 to 1.")
    if raw.shape != enhanced.shape:
        raise TrialError(f"embeddings {raw.shape} and their enhanced versions {enhanced.shape} cannot be added up.")
    if not own_lengths:
        raw, enhanced = normalise_length(raw), normalise_length(enhanced)
    return normalise_length((1 - weight) * raw + weight * enhanced)


@dataclass(frozen=True)
class LengthNorm:
    """Whitening, then normalisation of the length: x -> sqrt(D) A (x - c) / |A (x - c)|.

    It makes embeddings look Gaussian (Garcia-Romero & Espy-Wilson, "Analysis of i-vector length normalization", 2011).
    """

    centre: Float64Array
    """c, the mean of the training vectors [D]."""
    whitening: Float64Array
    """A [D, D], the symmetric root of the inverse of their smoothed covariance, see `fit`."""

    @classmethod
    def fit(cls, vectors: Float64Array, pseudo: float) -> "LengthNorm":
        """Fit to vectors [N, D] plus `pseudo` vectors with equal variance in all directions."""
        count, dim = vectors.shape
        centre = vectors.mean(axis=0)
        covariance = (vectors - centre).T @ (vectors - centre) / count
        spread = np.trace(covariance) / dim * np.eye(dim)
        values, axes = eigh((count * covariance + pseudo * spread) / (count + pseudo))
        return cls(centre, (axes / np.sqrt(values)) @ axes.T)

    def __call__(self, vectors: Float64Array) -> Float64Array:
        """Return vectors [N, D] whitened and of length sqrt(D)."""
        white = (vectors - self.centre) @ self.whitening
        norms = np.linalg.norm(white, axis=1, keepdims=True)
        return np.asarray(white * (np.sqrt(white.shape[1]) / np.where(norms == 0, 1, norms)))
