"""Diagnostics of each enhanced vector: how far it was moved, and whether it is unlike the training vectors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.errors import VectorError
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import DEFAULT_ATYPICALITY_LIMIT
from pipeline.utils.arrays import InputRows

MIN_NORM = 1e-12
"""L2 norm below which a vector has no direction."""
NOT_FINITE, ZERO, LENGTH, ATYPICAL = "not finite", "zero", "length", "atypical"
"""Reasons for which a vector is out of distribution."""


@dataclass(frozen=True)
class Info:
    """Diagnostics of vectors [..., D]. Each array is a NumPy array with their leading shape."""

    strength: float
    """The interpolation weight, from raw (0) to enhanced (1)."""
    moved: NDArray[np.float32]
    """Cosine distance from raw to enhanced, 0 to 2; 0 for vectors that were returned unchanged."""
    atypicality: NDArray[np.float32]
    """Squared Mahalanobis distance of the direction from those of training, divided by its median over held-out
    vectors: 1 is usual. Infinite without a direction."""
    confidence: NDArray[np.float32] | None
    """Fraction of held-out training vectors, clean and noisy, that are at least as atypical: uniform over 0 to 1 for
    speech like that of training, near 0 for anything else; 0 without a direction. None if the model's file has none."""
    norm_ratio: NDArray[np.float64] | None
    """L2 norm divided by the median norm of clean training vectors; infinite if not finite, or beyond float64. None if
    the model's file has none."""
    reason: NDArray[np.str_]
    """The first reason that applies, of "not finite", "zero", "length" and "atypical"; "" if in distribution."""

    @property
    def out_of_distribution(self) -> NDArray[np.bool_]:
        """Mask of the vectors that are unlike those of training."""
        return np.asarray(self.reason != "")


def unusable_mask(rows: InputRows) -> Tensor:
    """Return a mask [B] of rows that are not finite or have no direction, on the device of `rows.exact`."""
    mask: Tensor = rows.value_norms < MIN_NORM  # rows that are not finite have values of zero
    return mask.to(rows.exact.device)


def diagnose(model: SeedModel, rows: InputRows, result: Tensor, strength: float, shape: tuple[int, ...]) -> Info:
    """Return the diagnostics of raw vectors `rows` of a leading `shape`, enhanced to `result` [B, D] by the model."""
    unusable = unusable_mask(rows).cpu().numpy()
    # 1 - cos of unit vectors, exact for close vectors as well.
    moved = (normalize(rows.values, dim=1) - normalize(result, dim=1)).square().sum(dim=1).cpu().numpy() / 2
    atypicality = model.atypicality(rows.values).cpu().numpy()
    stats, norms = model.training_stats, rows.norms
    scaled = stats.outside_fences(norms).numpy() if stats else np.zeros(len(norms), bool)
    atypical = atypicality > (stats.atypicality if stats else DEFAULT_ATYPICALITY_LIMIT)
    finite = rows.finite.cpu().numpy()
    reason = np.select([~finite, unusable, scaled, atypical], [NOT_FINITE, ZERO, LENGTH, ATYPICAL], "")
    confidence = stats.confidence(atypicality) if stats else None
    ratio = np.where(finite, norms.numpy(), np.inf) / max(stats.clean_norm.p50, MIN_NORM) if stats else None
    return Info(
        strength,
        _reshape(np.where(unusable, np.float32(0), moved), shape),
        _reshape(np.where(unusable, np.float32(np.inf), atypicality), shape),
        None if confidence is None else _reshape(np.where(unusable, np.float32(0), confidence), shape),
        None if ratio is None else _reshape(ratio, shape),
        _reshape(reason, shape),
    )


def _reshape(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(values).reshape(shape)


def require_finite(rows: InputRows, shape: tuple[int, ...]) -> None:
    """Raise VectorError, naming the first, if any vectors of a leading shape are not finite."""
    if rows.plain or rows.finite.all():
        return
    bad = torch.nonzero(~rows.finite.cpu())[:, 0]
    index = ", ".join(map(str, np.unravel_index(int(bad[0]), shape))) if shape else ""
    first = f", first: row {index}" if index else ""
    raise VectorError(
        f"{len(bad)} of {len(rows.finite)} vectors hold NaN or infinite values{first}. Remove them, or pass"
        " on_bad='raw' to get them back unchanged."
    )
