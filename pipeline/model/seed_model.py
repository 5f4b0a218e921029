"""A trained SEED: preconditioner, network and schedule, in one safetensors file with its configuration."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.config.train import NetworkSettings, Train
from pipeline.model.diffusion.interpolation import interpolate
from pipeline.model.diffusion.network import Conditioning
from pipeline.model.diffusion.objective import load_objective
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.diffusion.schedule import cumulative_alphas, scaled_linear_betas
from pipeline.model.training_stats import TrainingStats

Pairs = NDArray[np.float32]
"""Embeddings [P, views, D], what all views of a row should become first."""


class SeedModel(nn.Module):
    """Everything between an encoder's embedding and its enhanced one."""

    abar: Tensor
    mean: Tensor
    matrix: Tensor
    strength: Tensor
    """How far from raw to enhanced embeddings it goes unless it is told, a scalar."""
    domain_mean: Tensor
    domain_matrix: Tensor
    training_stats: TrainingStats | None = None
    """What its training vectors looked like, where that is known; kept in the metadata of its file."""

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
        # Found once the network is trained, see `pipeline.training.strength`.
        self.register_buffer("strength", torch.ones(()))
        self.register_buffer("domain_mean", torch.zeros(dim))
        self.register_buffer("domain_matrix", torch.zeros(dim, dim))

    def prepare(self, embeddings: Tensor, scale: bool = True) -> Tensor:
        """Return [B, D] as the network sees them: preconditioned, then scaled to length sqrt(D) (unit mean square)."""
        moved = (embeddings - self.mean) @ self.matrix.T
        if not scale:
            return moved
        scaled: Tensor = nn.functional.normalize(moved, dim=1) * self.dim**0.5
        return scaled

    def conditioning(self, timestep: int) -> Conditioning:
        """Return what the network is told in a single step, see `DiffusionNetwork.compute_conditioning`."""
        with torch.no_grad():
            return self.network.compute_conditioning([timestep if self.settings.traits.gaussian_noise else 0])

    def forward(
        self,
        embeddings: Tensor,
        how: Sampling,
        draws: Sequence[Sequence[Tensor]] = (),
        told: Conditioning | None = None,
    ) -> Tensor:
        """Return enhanced embeddings [B, D] of raw ones; by default in one noise-free reverse step.

        They are to be compared with each other, not with raw ones. All of the way (`how.strength` 1) they live in the
        preconditioner's space.

        Args:
            embeddings: as the encoder gave them.
            how: timestep and steps.
            draws: of noise, see `NoiseDraws`.
            told: what the network would be told anyway, computed before.
        """
        strength = float(self.strength) if how.strength is None else how.strength
        network = partial(self.network, conditioning=told) if told else self.network
        enhanced = self.objective.infer(network, self.prepare(embeddings), how, self.abar, draws)
        return interpolate(embeddings, enhanced, strength)

    def atypicality(self, embeddings: Tensor) -> Tensor:
        """Return how far raw embeddings [B, D] are from those of training [B]; 1 is usual for speakers like those.

        The squared Mahalanobis distance of directions, in medians of the held-out speakers.
        """
        directions = nn.functional.normalize(embeddings, dim=1)
        return ((directions - self.domain_mean) @ self.domain_matrix.T).square().sum(dim=1)


@torch.no_grad()
def prepare_pairs(model: SeedModel, pairs: Pairs, to_train: bool = False) -> Tensor:
    """Return pairs [P, V, D] as the network sees them, or is trained on them, where the model lives."""
    flat = torch.from_numpy(pairs.reshape(-1, pairs.shape[-1])).to(model.mean.device)
    return model.prepare(flat, not to_train or model.settings.scale == "both").reshape(pairs.shape)
