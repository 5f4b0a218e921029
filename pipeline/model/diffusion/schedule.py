"""The noise schedule of the diffusion process, and its forward step."""

import torch
from torch import Tensor


def scaled_linear_betas(timesteps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Return variances beta [T] whose square roots are evenly spaced from sqrt(start) to sqrt(end), float64."""
    return torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64) ** 2


def cumulative_alphas(betas: Tensor) -> Tensor:
    """Return abar [T], the cumulative products of 1 - beta (DDPM, eq. 4), float32."""
    return torch.cumprod(1 - betas.double(), dim=0).float()


def forward_diffuse(x0: Tensor, t: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """Corrupt embeddings x0 [B, D] to timesteps t [B], 0 <= t < T, with normal noise [B, D] and abar [T].

    DDPM, eq. 4: sqrt(abar_t) x0 + sqrt(1 - abar_t) noise.
    """
    scale = abar[t].sqrt()[:, None]
    return scale * x0 + (1 - abar[t]).sqrt()[:, None] * noise
