"""SEED's denoising network: residual blocks on a vector that are told the time."""

import math

import torch
from torch import Tensor, nn


def timestep_embedding(t: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Return sinusoids [B, channels] of timesteps [B]: cosines first, then sines, periods 2 pi to 2 pi max_period."""
    half = channels // 2
    exponents = torch.arange(half, device=t.device, dtype=torch.float32) / half
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualBlock(nn.Module):
    """h + MLP(h, time): the time embedding is added between the two halves; zero at the start of training."""

    def __init__(self, width: int, time_dim: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, width))
        self.out_layers = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), _zeroed(nn.Linear(width, width))
        )

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Return [B, width] for hidden vectors [B, width] and time embeddings [B, time_dim]."""
        out: Tensor = h + self.out_layers(self.in_layers(h) + self.emb_layers(time))
        return out


class Denoiser(nn.Module):
    """f(x_t, t): predict the clean embedding from a diffused one.

    With `predict="sample"` the output is the prediction; with "correction" it is added to the input, so that a network
    that has learnt nothing leaves vectors alone.
    """

    def __init__(self, dim: int, blocks: int = 3, dropout: float = 0.1, predict: str = "correction") -> None:
        super().__init__()
        width = 2 * dim
        self.predict = predict
        self.time_channels = width
        self.time_embed = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.input_proj = nn.Linear(dim, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width, dim, dropout) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.SiLU(), _zeroed(nn.Linear(width, dim)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return predicted clean embeddings [B, D] for diffused ones [B, D] at integer timesteps [B]."""
        time = self.time_embed(timestep_embedding(t, self.time_channels).to(x.dtype))
        h = self.input_proj(x)
        for block in self.res_blocks:
            h = block(h, time)
        out: Tensor = self.out(h)
        return x + out if self.predict == "correction" else out


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
