"""Adapt a model to another domain of speech, from unlabelled raw vectors of that domain.

A language, a microphone or a kind of speaking moves all vectors of a domain alike. Adding mean(training) - mean(domain)
to its vectors therefore puts them where the training vectors are, and the model works there as it does in training.
Enrolments and tests from different domains can each be adapted: both are then in the space of the training.
"""

import hashlib
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, VectorError
from pipeline.model.adaptation_record import PRIOR_VECTORS, Adaptation
from pipeline.model.domain import domain_confidence
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import TrainingStats, measure_spread

MIN_VECTORS = 10
"""Minimum number of vectors to adapt to."""
FEW_SPEAKERS, MANY_SPEAKERS = 0.4, 0.7
"""Spread of the vectors, relative to training, up to which they count for nothing, and from which they count in full.

The vectors of one speaker have a spread of 0.2 to 0.5 (median by corpus), those of two of 0.5 to 0.8. The mean of one
speaker is not the mean of a domain. Subtracting it removes what distinguishes this speaker. Measured with GE2E."""


@torch.no_grad()
def adapt_model(
    model: SeedModel,
    vectors: NDArray[np.float32],
    base_sha256: str = "",
    name: str = "the model",
    count: int | None = None,
) -> SeedModel:
    """Return a copy of a model, with shared weights, that is adapted to the domain of raw vectors [N, D].

    The domain's mean is estimated as w mean(vectors) + (1 - w) mean(training), w = n / (n + 10), where n is the number
    of recordings, or less if the vectors vary too little to be of several speakers. The strength is the model's own, or
    0 if the adapted vectors are unlike those of training, see `LIMIT`.

    Args:
        model: a trained model; an earlier adaptation is replaced.
        vectors: vectors of the domain, unlabelled, preferably clean and of many speakers.
        base_sha256: SHA-256 of the model's file, for the record.
        name: the model, for messages.
        count: number of recordings that the vectors are of; None: each is of another one.

    Raises:
        ConfigError: the model does not know the mean of its training vectors.
        VectorError: there are fewer than 10 usable vectors, or recordings.
    """
    usable = vectors[np.linalg.norm(vectors, axis=1) > 0]
    recordings = len(usable) if count is None else count
    if min(recordings, len(usable)) < MIN_VECTORS:
        what = "vectors" if count is None else "recordings"
        raise VectorError(f"{recordings} {what} to adapt {name} to; at least {MIN_VECTORS} are needed.")
    if not model.mean.any():
        raise ConfigError(
            f"{name}: does not know the mean of its training vectors, so it cannot be adapted. Train a model with"
            " network.precondition other than none."
        )
    base = remove_adaptation(model)
    shift = model.mean.cpu().numpy().astype(np.float64) - usable.mean(axis=0, dtype=np.float64)
    moved = (usable + shift).astype(np.float32)
    weight, atypicality = estimate_weight(moved, recordings, model.training_stats), domain_confidence(base, moved)[1]
    shift *= weight
    adapted = _copy_with_shift(base, torch.from_numpy(shift.astype(np.float32)))
    adapted.adaptation = Adaptation(
        base_sha256=base_sha256,
        vectors=recordings,
        weight=round(weight, 6),
        atypicality=float(f"{atypicality:.6g}"),
        fingerprint=hashlib.sha256(adapted.shift.cpu().numpy().astype("<f4").tobytes()).hexdigest()[:16],
    )
    return adapted


def remove_adaptation(model: SeedModel) -> SeedModel:
    """Return the model as it was trained, with shared weights."""
    if model.adaptation is None:
        return model
    base = _copy_with_shift(model, torch.zeros_like(model.shift))
    base.adaptation = None
    return base


def estimate_weight(vectors: NDArray[np.float32], count: int, stats: TrainingStats | None) -> float:
    """Return the share of the mean of vectors in the estimate of their domain's mean, see `adapt_model`.

    Args:
        vectors: the vectors [N, D], moved so that their mean is that of training.
        count: number of recordings that they are of.
        stats: statistics of the training vectors.
    """
    counted = float(count)
    if stats and stats.spread:
        ratio = measure_spread(vectors) / stats.spread
        counted *= float(np.clip((ratio - FEW_SPEAKERS) / (MANY_SPEAKERS - FEW_SPEAKERS), 0, 1))
    return counted / (counted + PRIOR_VECTORS)


def _copy_with_shift(model: SeedModel, shift: torch.Tensor) -> SeedModel:
    """Return a copy of a model with another shift; all other tensors are shared."""
    other = copy(model)
    other._buffers = dict(model._buffers)  # a shallow copy shares the dictionary itself
    other.shift = shift.to(model.mean.device)
    return other
