"""The SEED model: preconditioner, network and schedule."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.config.train import NetworkSettings, Train
from pipeline.model.adaptation_record import Adaptation
from pipeline.model.diffusion.interpolation import interpolate
from pipeline.model.diffusion.network import Conditioning
from pipeline.model.diffusion.objective import load_objective
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.diffusion.schedule import cumulative_alphas, scaled_linear_betas
from pipeline.model.training_stats import TrainingStats

Pairs = NDArray[np.float32]
"""Embeddings [P, views, D]; the first view of a row is the target of all its views."""


FULL_FROM = 0.5
"""Strength from which speech that a model is adapted to gets the highest one, `train.strength`.

A model's strength is the lowest of those with nearly the same noisy EER on speech like that of its training. Other
speech needs more: on each of four corpora left out, the highest strength was better in noise or as good, with GE2E and
with CAM++, and on clean speech no worse than raw (docs/adaptation.md)."""


class SeedModel(nn.Module):
    """The whole map from raw to enhanced embeddings."""

    abar: Tensor
    mean: Tensor
    matrix: Tensor
    strength: Tensor
    """The default interpolation weight from raw (0) to enhanced (1) embeddings, a scalar."""
    domain_mean: Tensor
    domain_matrix: Tensor
    shift: Tensor
    """Vectors [K, D], one of which is added to each raw embedding: the training mean minus that of an adapted domain;
    0 without adaptation. It maps speech of the domain to where the training speech is, see
    `pipeline.model.adaptation`."""
    noise_axes: Tensor
    """Directions [D, 4] in which noise moves raw embeddings most, which choose among several shifts; [D, 0] if they
    were not needed yet."""
    training_stats: TrainingStats | None = None
    """Statistics of the training vectors, if known; stored in the metadata of the model file."""
    only_timestep: int | None = None
    """The only timestep of a model from a compact file; None for others."""
    adaptation: Adaptation | None = None
    """The record of the adaptation that `shift` comes from."""

    def __init__(self, dim: int, settings: Train) -> None:
        super().__init__()
        self.dim, self.settings = dim, settings
        shape: NetworkSettings = settings.network
        betas = scaled_linear_betas(settings.timesteps, settings.beta_start, settings.beta_end)
        abar = cumulative_alphas(betas)
        self.objective = load_objective(settings.objective)
        self.network = self.objective.network(dim, shape.blocks, shape.dropout, shape.predict, abar, shape.width)
        self.register_buffer("abar", abar, persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))
        # Set after training, see `pipeline.training.strength`.
        self.register_buffer("strength", torch.ones(()))
        self.register_buffer("domain_mean", torch.zeros(dim))
        self.register_buffer("domain_matrix", torch.zeros(dim, dim))
        self.register_buffer("shift", torch.zeros(1, dim), persistent=False)
        self.register_buffer("noise_axes", torch.zeros(dim, 0), persistent=False)

    @property
    def default_strength(self) -> float:
        """The interpolation weight to use: `strength`, or that of an adapted model.

        It is `adapted_strength` after an adaptation to vectors, 0 if these were implausible, and what was found on the
        recordings after a refit to recordings.
        """
        if self.adaptation is None:
            return float(self.strength)
        if not self.adaptation.is_plausible:
            return 0.0
        return float(self.strength) if self.adaptation.keeps_strength else self.adapted_strength

    @property
    def adapted_strength(self) -> float:
        """The interpolation weight for speech that the model is adapted to, see `FULL_FROM`."""
        own, most = float(self.strength), self.settings.strength
        return most if own >= FULL_FROM * most else own

    def move(self, embeddings: Tensor) -> Tensor:
        """Return raw embeddings [B, D] moved from their domain to that of the training.

        Of several shifts, each embedding gets the one that moves it nearest to the training mean along `noise_axes`.
        """
        if len(self.shift) == 1:
            return embeddings + self.shift
        along = (embeddings - self.mean) @ self.noise_axes
        distances = (along[:, None] + self.shift @ self.noise_axes).square().sum(dim=2)
        return embeddings + self.shift[distances.argmin(dim=1)]

    def prepare(self, embeddings: Tensor, scale: bool = True) -> Tensor:
        """Return the network's inputs [B, D]: preconditioned, then scaled to length sqrt(D) (unit mean square)."""
        conditioned = (self.move(embeddings) - self.mean) @ self.matrix.T
        if not scale:
            return conditioned
        scaled: Tensor = nn.functional.normalize(conditioned, dim=1) * self.dim**0.5
        return scaled

    def compute_conditioning(self, timestep: int) -> Conditioning:
        """Return the network's conditioning for a single step, see `DiffusionNetwork.compute_conditioning`."""
        with torch.no_grad():
            return self.network.compute_conditioning([timestep if self.settings.traits.gaussian_noise else 0])

    def forward(
        self,
        embeddings: Tensor,
        sampling: Sampling,
        draws: Sequence[Sequence[Tensor]] = (),
        conditioning: Conditioning | None = None,
    ) -> Tensor:
        """Return enhanced embeddings [B, D] of raw ones; by default in one noise-free reverse step.

        Compare them with each other, not with raw ones. At `sampling.strength` 1 they are in the preconditioned space.

        Args:
            embeddings: raw embeddings, exactly as the encoder returns them.
            sampling: timestep, steps and strength.
            draws: draws of noise, see `NoiseDraws`.
            conditioning: the result of `compute_conditioning`, to avoid computing it again.
        """
        strength = self.default_strength if sampling.strength is None else sampling.strength
        network = partial(self.network, conditioning=conditioning) if conditioning else self.network
        enhanced = self.objective.infer(network, self.prepare(embeddings), sampling, self.abar, draws)
        return interpolate(self.move(embeddings) if strength else embeddings, enhanced, strength)

    def atypicality(self, embeddings: Tensor) -> Tensor:
        """Return the atypicality [B] of raw embeddings [B, D]: about 1 in domain, larger out of domain.

        It is the squared Mahalanobis distance of the direction, divided by its median over held-out speakers.
        """
        directions = nn.functional.normalize(self.move(embeddings), dim=1)
        return ((directions - self.domain_mean) @ self.domain_matrix.T).square().sum(dim=1)


@torch.no_grad()
def prepare_pairs(model: SeedModel, pairs: Pairs, to_train: bool = False) -> Tensor:
    """Return pairs [P, V, D] prepared for the network, or for its training if `to_train`, on the model's device."""
    flat = torch.from_numpy(pairs.reshape(-1, pairs.shape[-1])).to(model.mean.device)
    return model.prepare(flat, not to_train or model.settings.scale == "both").reshape(pairs.shape)
