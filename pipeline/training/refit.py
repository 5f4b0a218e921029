"""Refit a model to recordings of another domain, without labels: its mean and its whitening, in closed form.

The recordings are encoded clean and corrupted, so they show more than the domain's mean (`pipeline.model.adaptation`):
also the directions in which noise moves vectors of this domain. Training the network further on 50 recordings gained
little and harmed clean speech as often as not (docs/adaptation.md), so it stays as it is.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, TrainingError
from pipeline.model.adaptation import adapt_model, find_noise_axes
from pipeline.model.seed_model import SeedModel
from pipeline.training.preconditioner import Matrix, displacement_of_whitening, whitening_matrix
from pipeline.training.strength import MAX_HARM, Crops, HeldOut, find_strength

PRIOR_RECORDINGS = 20
"""Number of recordings at which the covariance of displacements lies halfway between that of training and theirs."""


def refit_model(
    model: SeedModel,
    crops: Crops,
    strength: float | None = None,
    base_sha256: str = "",
    name: str = "the model",
) -> SeedModel:
    """Return a copy of a model, with shared network weights, that is refitted to the domain of some recordings.

    The mean is adapted as by `adapt_model`. The whitening becomes that of w C / tr(C) + (1 - w) C0 / tr(C0), with C the
    covariance of the recordings' displacements, C0 that of training, and w = N / (N + 20). Vectors that the result
    enhances can be compared with each other, not with those of `model`.

    Args:
        model: a trained model; only its mean is adapted if it has no whitening (`network.precondition: whiten`).
        crops: raw embeddings [N, draws, views, D] of N recordings, view 0 clean.
        strength: interpolation weight from raw to enhanced; None: that of an adapted model.
        base_sha256: SHA-256 of the model's file, for the record.
        name: the model, for messages.

    Raises:
        ConfigError: the model does not know the mean of its training vectors, or was refitted before.
        TrainingError: corrupted crops are all equal to the clean ones.
        VectorError: there are fewer than 10 usable clean vectors.
    """
    if model.adaptation and model.adaptation.keeps_strength:
        raise ConfigError(f"{name}: was refitted to recordings already. Give the model that it came from.")
    clean = crops[:, :, 0].reshape(-1, model.dim)
    adapted = adapt_model(model, clean, base_sha256, name, len(crops))
    if model.settings.network.precondition == "whiten":
        matrix = whitening_matrix(_pool_displacements(model, crops))
        adapted.matrix, adapted.noise_axes = torch.from_numpy(matrix).to(model.matrix), find_noise_axes(model)
    adapted.strength = torch.full_like(model.strength, model.adapted_strength if strength is None else strength)
    assert adapted.adaptation is not None
    adapted.adaptation = adapted.adaptation.model_copy(update={"recordings": len(crops), "keeps_strength": True})
    return adapted


def refit_halves(model: SeedModel, crops: Crops) -> list[HeldOut]:
    """Return each half of some recordings with the model that is refitted to the other half.

    Each crop counts as an utterance, and its recording as the speaker.
    """
    parts = []
    for half in (0, 1):
        own = crops[half::2]
        names = [str(number) for number in range(len(own)) for _ in range(own.shape[1])]
        parts.append(HeldOut(refit_model(model, crops[1 - half :: 2]), own.reshape(-1, 1, *own.shape[2:]), names))
    return parts


def choose_strength(parts: Sequence[HeldOut], timestep: int, seed: int) -> float:
    """Return the strength for a refitted model, found without labels: recordings count as speakers.

    It is that of any adapted model, unless that does harm or another one lowers the noisy EER clearly.

    Args:
        parts: what `refit_halves` returns.
        timestep: timestep of the enhancement.
        seed: seed of the choice of trials and of the bootstrap.
    """
    model = parts[0].model  # whose strength is that of an adapted model
    # Recordings are told apart more easily than speakers: their EERs are near 0, where differences are often chance.
    return find_strength(parts, timestep, model.settings.strength, seed, MAX_HARM, float(model.strength)).strength


def _pool_displacements(model: SeedModel, crops: Crops) -> Matrix:
    """Return the covariance of displacements [D, D], of trace 1, pooled from recordings and from the training."""
    trained = displacement_of_whitening(model.matrix.cpu().numpy().astype(np.float64))
    exact: NDArray[np.float64] = crops.astype(np.float64)
    moved = (exact - exact[:, :, :1].mean(axis=1, keepdims=True)).reshape(-1, model.dim)  # as in `build_pairs`
    own = moved.T @ moved
    if (exact[:, :, 1:] == exact[:, :, :1]).all() or not np.trace(own) > 0:
        raise TrainingError("all corrupted crops of the recordings are equal to the clean ones; check the corruption.")
    weight = len(crops) / (len(crops) + PRIOR_RECORDINGS)
    return np.asarray(weight * own / np.trace(own) + (1 - weight) * trained / np.trace(trained))
