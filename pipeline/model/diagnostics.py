"""What is known of each vector that was enhanced: how far it was moved, and whether it is one that the model knows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.errors import VectorError
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import FALLBACK
from pipeline.utils.arrays import InputRows

ZERO = 1e-12
"""L2 norm below which a vector has no direction."""
NOT_FINITE, NOTHING, LENGTH, ATYPICAL = "not finite", "zero", "length", "atypical"
"""Reasons to take a vector for one that the model does not know."""


@dataclass(frozen=True)
class Info:
    """Of vectors [..., D]; each array has their leading shape, and is a NumPy array whatever they are."""

    strength: float
    """How far from raw (0) to enhanced (1) they were moved."""
    moved: NDArray[np.float32]
    """Cosine distance from raw to enhanced, 0 to 2; 0 where a vector came back as it was."""
    atypicality: NDArray[np.float32]
    """Squared Mahalanobis distance of the direction from those of training, in medians of held-out vectors: 1 is usual.
    Infinite where there is no direction."""
    confidence: NDArray[np.float32] | None
    """Share of held-out training vectors, clean and noisy, that are as atypical or more: spread over 0 to 1 for speech
    like that of training, near 0 for anything else; 0 without a direction. None if the model's file has none."""
    norm_ratio: NDArray[np.float64] | None
    """L2 norm by the median of clean training vectors; infinite where not finite, or beyond float64. None if the
    model's file has none."""
    reason: NDArray[np.str_]
    """Why a vector is out of distribution, the first of "not finite", "zero", "length" and "atypical" that applies; ""
    where it is not."""

    @property
    def out_of_distribution(self) -> NDArray[np.bool_]:
        """Which vectors are unlike those of training."""
        return np.asarray(self.reason != "")


def unusable_mask(rows: InputRows) -> Tensor:
    """Return which rows [B] are not finite, or have no direction; beside `rows.exact`."""
    without: Tensor = rows.lengths < ZERO  # as zeros stand for what is not finite
    return without.to(rows.exact.device)


def info(model: SeedModel, rows: InputRows, result: Tensor, strength: float, shape: tuple[int, ...]) -> Info:
    """Return what is known of rows, and of what became of them.

    Args:
        model: that made `result`.
        rows: raw vectors.
        result: enhanced ones [B, D], where the model lives.
        strength: how far it went.
        shape: of the arrays, B values.
    """
    gone = unusable_mask(rows).cpu().numpy()
    # 1 - cos of unit vectors, exact also where they are near.
    moved = (normalize(rows.values, dim=1) - normalize(result, dim=1)).square().sum(dim=1).cpu().numpy() / 2
    atypicality = model.atypicality(rows.values).cpu().numpy()
    bounds, norms = model.training_stats, rows.norms
    length = bounds.beyond(norms).numpy() if bounds else np.zeros(len(norms), bool)
    far = atypicality > (bounds.atypicality if bounds else FALLBACK)
    finite = rows.finite.cpu().numpy()
    reason = np.select([~finite, gone, length, far], [NOT_FINITE, NOTHING, LENGTH, ATYPICAL], "")
    sure = bounds.confidence(atypicality) if bounds else None
    ratio = np.where(finite, norms.numpy(), np.inf) / max(bounds.clean_norm.p50, ZERO) if bounds else None
    return Info(
        strength,
        _shaped(np.where(gone, np.float32(0), moved), shape),
        _shaped(np.where(gone, np.float32(np.inf), atypicality), shape),
        None if sure is None else _shaped(np.where(gone, np.float32(0), sure), shape),
        None if ratio is None else _shaped(ratio, shape),
        _shaped(reason, shape),
    )


def _shaped(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(values).reshape(shape)


def require_finite(rows: InputRows, shape: tuple[int, ...]) -> None:
    """Raise VectorError, which names the first, if vectors of a leading shape are not finite."""
    if rows.plain or rows.finite.all():
        return
    bad = torch.nonzero(~rows.finite.cpu())[:, 0]
    place = ", ".join(map(str, np.unravel_index(int(bad[0]), shape))) if shape else ""
    first = f", first: row {place}" if place else ""
    raise VectorError(
        f"{len(bad)} of {len(rows.finite)} vectors hold NaN or infinite values{first}. Leave them out, or get them back"
        " raw with on_bad='raw'."
    )
