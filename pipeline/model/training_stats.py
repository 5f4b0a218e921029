"""What raw vectors of training looked like, in a model's metadata, so that vectors unlike them can be told."""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.utils.validation import Frozen

LEAST, MOST = 1.25, 4.0
"""How many times shorter than the 1st, or longer than the 99th percentile of training a vector may be, at least and at
most; in between, as many times as the percentiles are from each other (fences as wide as what is between them).

Of CAM++ that is from 3.5 to 20: speech, clean and at 5 dB of white noise, has 6.2 to 11.1 (1st to 99th percentile),
white noise, tones and music by themselves have 8.5 to 14.6. Of an encoder that normalises it is from 0.8 to 1.25. What
lies beyond was scaled by somebody: to length 1, or by the square root of D.
"""
UNUSUAL = 99.9
"""Percentile of the held-out atypicality above which a vector is unlike training."""
LEVELS = (*range(0, 100, 5), 97.5, 99, 99.5, UNUSUAL, 100)
"""Percentiles of the held-out atypicality that a model keeps, to tell how usual a vector is."""
FALLBACK = 6.0
"""That atypicality, of a model whose file does not say: between the most of noisy speech and the least of another
encoder's vectors, as measured with GE2E (docs/api.md)."""


class Lengths(Frozen):
    """Percentiles of L2 norms."""

    p1: float = Field(ge=0, allow_inf_nan=False)
    p50: float = Field(ge=0, allow_inf_nan=False)
    p99: float = Field(ge=0, allow_inf_nan=False)


class TrainingStats(Frozen):
    """Of the vectors that training looked at in its end, see `strength.calibrate_strength`."""

    clean_norm: Lengths
    noisy_norm: Lengths
    atypicality: float = Field(ge=0, allow_inf_nan=False)
    """Percentile `UNUSUAL` over clean and noisy vectors of held-out speakers, see `SeedModel.atypicality`."""
    percentiles: list[float] | None = Field(None, min_length=len(LEVELS), max_length=len(LEVELS))
    """Of the same vectors, at `LEVELS`; None of models of before."""

    @property
    def fences(self) -> tuple[float, float]:
        """The least and the greatest L2 norm that are not too short or too long by far, see `LEAST`."""
        low, high = min(self.clean_norm.p1, self.noisy_norm.p1), max(self.clean_norm.p99, self.noisy_norm.p99)
        factor = min(max(high / low, LEAST), MOST) if low else MOST
        return low / factor, high * factor

    def confidence(self, atypicality: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the share of held-out vectors that are as atypical as each [B], or more; None of models of before.

        Of vectors like those it is spread evenly over 0 to 1: the p-value of conformal prediction (Vovk et al., 2005).
        """
        if self.percentiles is None:
            return None
        share = np.interp(atypicality, self.percentiles, 1 - np.array(LEVELS) / 100, left=1.0, right=0.0)
        return share.astype(np.float32)

    def beyond(self, norms: Tensor) -> Tensor:
        """Return which L2 norms [B] are too short or too long by far [B]."""
        low, high = self.fences
        return (norms < low) | (norms > high)


def doubt_of_length(bounds: TrainingStats | None, norms: Tensor) -> str | None:
    """Return what is to be said where the median of L2 norms [B] is beyond the fences, or None."""
    if not bounds or not len(norms):
        return None
    (low, high), median = bounds.fences, float(norms.median())
    if low <= median <= high:
        return None
    return (
        f"vectors have a median length of {median:.4g}, those of the training {bounds.clean_norm.p50:.4g}. Give them as"
        " the encoder does, neither normalised nor scaled."
    )


def lengths(vectors: NDArray[np.float32]) -> Lengths:
    """Return the percentiles of the norms of vectors [..., D]."""
    norms = np.linalg.norm(vectors.reshape(-1, vectors.shape[-1]).astype(np.float64), axis=1)
    p1, p50, p99 = (_rounded(value) for value in np.percentile(norms, (1, 50, 99)))
    return Lengths(p1=p1, p50=p50, p99=p99)


def percentiles(atypicality: Tensor) -> list[float]:
    """Return the percentiles at `LEVELS` of the atypicality of held-out vectors [B]."""
    found = np.percentile(atypicality.to(torch.float64).cpu().numpy(), LEVELS)
    return [_rounded(float(value)) for value in found]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
