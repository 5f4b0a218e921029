"""Statistics of the raw training vectors, stored in a model's metadata to detect vectors unlike them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.utils.validation import Frozen

MIN_FENCE_FACTOR, MAX_FENCE_FACTOR = 1.25, 4.0
"""Limits of the factor by which a norm may fall below the 1st or exceed the 99th percentile of training.

Between these limits the factor is the ratio of the two percentiles: fences are as wide as the range between. For CAM++
they are 3.5 and 20: speech, clean and at 5 dB of white noise, has 6.2 to 11.1 (1st to 99th percentile); white noise,
tones and music by themselves have 8.5 to 14.6. For an encoder that normalises they are 0.8 and 1.25. A norm outside
means that the vectors were scaled: to length 1, or by the square root of D.
"""
OUTLIER_PERCENTILE = 99.9
"""Percentile of the held-out atypicality above which a vector is flagged."""
LEVELS = (*range(0, 100, 5), 97.5, 99, 99.5, OUTLIER_PERCENTILE, 100)
"""Percentiles of the held-out atypicality that a model file stores."""
DEFAULT_ATYPICALITY_LIMIT = 6.0
"""Limit for models whose file has none: between the largest atypicality of noisy speech and the smallest of another
encoder's vectors, as measured with GE2E (docs/api.md)."""


class NormPercentiles(Frozen):
    """Percentiles of L2 norms."""

    p1: float = Field(ge=0, allow_inf_nan=False)
    p50: float = Field(ge=0, allow_inf_nan=False)
    p99: float = Field(ge=0, allow_inf_nan=False)


class TrainingStats(Frozen):
    """Statistics of the training vectors, see `strength.calibrate_strength`."""

    clean_norm: NormPercentiles
    noisy_norm: NormPercentiles
    atypicality: float = Field(ge=0, allow_inf_nan=False)
    """Percentile `OUTLIER_PERCENTILE` of `SeedModel.atypicality` over clean and noisy vectors of held-out speakers."""
    percentiles: list[float] | None = Field(None, min_length=len(LEVELS), max_length=len(LEVELS))
    """Percentiles of the same atypicalities at `LEVELS`; None for models saved by older versions."""
    spread: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Spread of the clean vectors, see `measure_spread`; None for models saved by older versions."""

    @property
    def fences(self) -> tuple[float, float]:
        """The smallest and the largest plausible L2 norm, see `MIN_FENCE_FACTOR`."""
        low, high = min(self.clean_norm.p1, self.noisy_norm.p1), max(self.clean_norm.p99, self.noisy_norm.p99)
        factor = min(max(high / low, MIN_FENCE_FACTOR), MAX_FENCE_FACTOR) if low else MAX_FENCE_FACTOR
        return low / factor, high * factor

    def confidence(self, atypicality: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the fraction of held-out vectors at least as atypical as each [B]; None for models of older versions.

        It is uniform over 0 to 1 for in-domain vectors: the p-value of conformal prediction (Vovk et al., 2005).
        """
        if self.percentiles is None:
            return None
        fraction = np.interp(atypicality, self.percentiles, 1 - np.array(LEVELS) / 100, left=1.0, right=0.0)
        return fraction.astype(np.float32)

    def outside_fences(self, norms: Tensor) -> Tensor:
        """Return a mask [B] of the L2 norms [B] that are implausibly small or large."""
        low, high = self.fences
        return (norms < low) | (norms > high)


def describe_norm_mismatch(stats: TrainingStats | None, norms: Tensor) -> str | None:
    """Return a warning if the median of L2 norms [B] is outside the fences, else None."""
    if not stats or not len(norms):
        return None
    (low, high), median = stats.fences, float(norms.median())
    if low <= median <= high:
        return None
    return (
        f"vectors have a median length of {median:.4g}, training vectors {stats.clean_norm.p50:.4g}. Pass them exactly"
        " as the encoder returns them, neither normalised nor scaled."
    )


def measure_spread(vectors: NDArray[np.floating[Any]]) -> float:
    """Return the total variance of the directions of vectors [..., D], 0 to 1."""
    flat = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
    directions = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return _round(float(directions.var(axis=0).sum()))


def norm_percentiles(vectors: NDArray[np.float32]) -> NormPercentiles:
    """Return the percentiles of the norms of vectors [..., D]."""
    norms = np.linalg.norm(vectors.reshape(-1, vectors.shape[-1]).astype(np.float64), axis=1)
    p1, p50, p99 = (_round(value) for value in np.percentile(norms, (1, 50, 99)))
    return NormPercentiles(p1=p1, p50=p50, p99=p99)


def atypicality_percentiles(atypicality: Tensor) -> list[float]:
    """Return the percentiles at `LEVELS` of the atypicality of held-out vectors [B]."""
    return [_round(float(value)) for value in np.percentile(atypicality.to(torch.float64).cpu().numpy(), LEVELS)]


def _round(value: float) -> float:
    return float(f"{value:.6g}")
