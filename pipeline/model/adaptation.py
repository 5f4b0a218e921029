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
from scipy.cluster.vq import kmeans2

from pipeline.errors import ConfigError, VectorError
from pipeline.model.adaptation_record import PRIOR_VECTORS, Adaptation
from pipeline.model.domain import domain_confidence
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import TrainingStats, measure_spread

MIN_VECTORS = 10
"""Minimum number of vectors to adapt to."""
FEW_SPEAKERS, MANY_SPEAKERS = 0.4, 0.7
"""Spread of the vectors, relative to training, at or below which their weight is 0, and from which it is not reduced.

The vectors of one speaker have a spread of 0.2 to 0.5 (median by corpus), those of two of 0.5 to 0.8. The mean of one
speaker is not the mean of a domain. Subtracting it removes what distinguishes this speaker. Measured with GE2E."""


NOISE_AXES = 4
"""Number of directions in which noise moves vectors most that tell the two means apart."""
MIN_POOL = 100
"""Minimum number of vectors for two means."""
NEAR = 0.4
"""Distance from the mean of training up to which an adaptation is accepted, see `leads_away`.

Adapted to 10 vectors of their own domain, vectors are 0.2 to 0.4 away. Adapted to noise alone, to another corpus or to
8 kHz speech, those of four corpora were 0.43 or more away, and farther than without adaptation. Measured with GE2E."""
PRIOR_HALF = 30
"""Number of vectors of a half at which its mean lies halfway between theirs and that of all."""


@torch.no_grad()
def adapt_model(
    model: SeedModel,
    vectors: NDArray[np.float32],
    base_sha256: str = "",
    name: str = "the model",
    count: int | None = None,
    means: int = 1,
) -> SeedModel:
    """Return a copy of a model, with shared weights, that is adapted to the domain of raw vectors [N, D].

    The domain's mean is estimated as w mean(vectors) + (1 - w) mean(training), w = n / (n + 10), where n is the number
    of recordings; w is less, down to 0, if the vectors vary too little to be of several speakers. The strength is
    `SeedModel.adapted_strength`, or 0 if the adapted vectors are unlike those of training, see `LIMIT`.

    With two means, the vectors are a pool of unknown conditions, such as recent ones of a service. They are split in
    two along the directions in which noise moves vectors most (k-means), and each half gets its own mean. The model
    then moves each vector that it enhances by the shift of the nearer half.

    Args:
        model: a trained model; an earlier adaptation is replaced.
        vectors: vectors of the domain, unlabelled, preferably clean and of many speakers.
        base_sha256: SHA-256 of the model's file, for the record.
        name: the model, for messages.
        count: number of recordings that the vectors are of; None: each is of another one.
        means: number of means, 1 or 2.

    Raises:
        ConfigError: the model does not know the mean of its training vectors, or, for two means, has no whitening.
        VectorError: there are fewer than 10 usable vectors or recordings, or fewer than 100 for two means.
    """
    usable = vectors[np.linalg.norm(vectors, axis=1) > 0]
    recordings = len(usable) if count is None else count
    needed = MIN_POOL if means > 1 else MIN_VECTORS
    if min(recordings, len(usable)) < needed:
        what = "vectors" if count is None else "recordings"
        zero = np.flatnonzero(np.linalg.norm(vectors, axis=1) == 0)
        ignored = f" ({len(zero)} of {len(vectors)} vectors are zeros, first: row {zero[0]})" if len(zero) else ""
        raise VectorError(f"{recordings} {what} to adapt {name} to{ignored}; at least {needed} are needed.")
    if means > 1 and model.settings.network.precondition != "whiten":
        raise ConfigError(
            f"{name}: has no whitening, so it does not know the directions of noise. Adapt with one mean."
        )
    if not model.mean.any():
        raise ConfigError(
            f"{name}: does not know the mean of its training vectors, so it cannot be adapted. Train a model with"
            " network.precondition other than none."
        )
    base = remove_adaptation(model)
    shift = model.mean.cpu().numpy().astype(np.float64) - usable.mean(axis=0, dtype=np.float64)
    moved = (usable + shift).astype(np.float32)
    weight, atypicality = estimate_weight(moved, recordings, model.training_stats), domain_confidence(base, moved)[1]
    shifts, axes = (weight * shift)[None], base.noise_axes
    if means > 1:
        axes = find_noise_axes(base)
        share = measure_speaker_share(moved, model.training_stats)
        shifts = _split_shift(usable, shifts[0], model.mean.cpu().numpy(), axes.cpu().numpy(), share)
    adapted = set_shift(base, torch.from_numpy(shifts.astype(np.float32)), axes)
    adapted.adaptation = Adaptation(
        base_sha256=base_sha256,
        vectors=recordings,
        keeps_strength=model.adaptation is not None and model.adaptation.keeps_strength,
        means=len(shifts),
        weight=round(weight, 6),
        atypicality=float(f"{atypicality:.6g}"),
        fingerprint=hashlib.sha256(adapted.shift.cpu().numpy().astype("<f4").tobytes()).hexdigest()[:16],
    )
    return adapted


@torch.no_grad()
def leads_away(model: SeedModel, vectors: NDArray[np.float32]) -> bool:
    """Return True if an adaptation takes raw vectors [N, D] away from the mean of training instead of nearer to it.

    It then was an adaptation to other speech than that of the vectors, to noise, or to another bandwidth. Distances are
    those of the vectors' mean after the whitening, in units of their spread there. One below `NEAR` is always accepted,
    because the mean of ten vectors is that uncertain. Fewer than ten vectors show nothing.
    """
    if len(vectors) < MIN_VECTORS:
        return False
    raw = torch.from_numpy(vectors).to(model.mean.device)
    before, after = ((each - model.mean) @ model.matrix.T for each in (raw, model.move(raw)))
    spread = (after - after.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    distances = [float(each.mean(dim=0).norm()) for each in (before, after)]
    return distances[1] > max(distances[0], NEAR * float(spread))


def remove_adaptation(model: SeedModel) -> SeedModel:
    """Return the model as it was trained, with shared weights."""
    if model.adaptation is None:
        return model
    base = set_shift(model, torch.zeros(1, model.dim), model.noise_axes)
    base.adaptation = None
    return base


def estimate_weight(vectors: NDArray[np.float32], count: int, stats: TrainingStats | None) -> float:
    """Return the share of the mean of vectors in the estimate of their domain's mean, see `adapt_model`.

    Args:
        vectors: the vectors [N, D], moved so that their mean is that of training.
        count: number of recordings that they are of.
        stats: statistics of the training vectors.
    """
    return measure_speaker_share(vectors, stats) * count / (count + PRIOR_VECTORS)


def measure_speaker_share(vectors: NDArray[np.float32], stats: TrainingStats | None) -> float:
    """Return 1 if vectors [N, D] vary as those of several speakers do, less if not, down to 0, see `FEW_SPEAKERS`."""
    if not stats or not stats.spread:
        return 1.0
    ratio = measure_spread(vectors) / stats.spread
    return float(np.clip((ratio - FEW_SPEAKERS) / (MANY_SPEAKERS - FEW_SPEAKERS), 0, 1))


def set_shift(model: SeedModel, shift: torch.Tensor, axes: torch.Tensor | None = None) -> SeedModel:
    """Return a copy of a model with other shifts [K, D] and noise axes [D, A]; all other tensors are shared.

    Without axes, several shifts get those of the model.
    """
    other = copy(model)
    other._buffers = dict(model._buffers)  # a shallow copy shares the dictionary itself
    if axes is None:
        axes = find_noise_axes(model) if len(shift) > 1 else model.noise_axes
    other.shift, other.noise_axes = shift.to(model.mean.device), axes.to(model.mean.device)
    return other


def find_noise_axes(model: SeedModel) -> torch.Tensor:
    """Return the directions [D, 4] in which noise moved the training vectors most, from the whitening, or as kept."""
    if model.noise_axes.shape[1]:
        return model.noise_axes
    matrix = model.matrix.cpu().numpy().astype(np.float64)
    return torch.from_numpy(np.linalg.eigh(matrix)[1][:, :NOISE_AXES].astype(np.float32))  # the least amplified ones


def _split_shift(
    vectors: NDArray[np.float32],
    shift: NDArray[np.float64],
    mean: NDArray[np.float32],
    axes: NDArray[np.float32],
    share: float,
) -> NDArray[np.float64]:
    """Return the shifts [2, D] of the two halves of vectors; [1, D] if they do not fall in two.

    Args:
        vectors: vectors [N, D] of a pool.
        shift: shift [D] of the whole pool.
        mean: mean [D] of training.
        axes: directions of noise [D, A].
        share: largest weight of the mean of a half.
    """
    along = (vectors - vectors.mean(axis=0, dtype=np.float64)) @ axes
    wide = np.zeros(axes.shape[1])
    widest = int(along.std(axis=0).argmax())
    wide[widest] = along[:, widest].std()
    # The start is fixed, so that the same vectors always give the same halves.
    half = kmeans2(along, np.stack([wide, -wide]), iter=50, minit="matrix", missing="warn")[1]
    shifts = []
    for number in (0, 1):
        own = vectors[half == number]
        if not len(own):
            return shift[None]
        weight = share * len(own) / (len(own) + PRIOR_HALF)
        shifts.append(weight * (mean - own.mean(axis=0, dtype=np.float64)) + (1 - weight) * shift)
    return np.stack(shifts)
