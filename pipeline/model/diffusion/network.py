"""SEED's denoising network: residual blocks on a vector, conditioned on the timestep."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Conditioning = Mapping[int, Sequence[Tensor]]
"""Vectors that residual blocks add at some timesteps: for each timestep, [1, width] for each block."""


def timestep_embedding(t: Tensor, channels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return sinusoids [B, channels] of timesteps [B] with periods 2 pi to 20,000 pi: cosines first, then sines.

    If the number of channels is odd, the last one is zero. Angles are computed in `dtype` where the device supports it;
    the result is float32.
    """
    dtype = torch.float32 if t.device.type == "mps" else dtype
    exponents = torch.arange(channels // 2, dtype=dtype, device=t.device) / (channels // 2)
    angles = t.to(dtype)[:, None] * torch.exp(-math.log(10_000) * exponents)
    parts = [angles.cos(), angles.sin()] + ([angles.new_zeros(len(angles), 1)] if channels % 2 else [])
    return torch.cat(parts, dim=1).float()


class ResidualBlock(nn.Module):
    """h + MLP(h, time): the time embedding is added between the two halves; the MLP is zero before training."""

    def __init__(self, width: int, time_dim: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, width))
        last = zero_weights(nn.Linear(width, width))
        self.out_layers = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), last)

    def forward(self, h: Tensor, conditioning: Tensor) -> Tensor:
        """Return [B, width] for hidden vectors [B, width] and `emb_layers` of the time [B or 1, width]."""
        out: Tensor = h + self.out_layers(self.in_layers(h) + conditioning)
        return out


class DiffusionNetwork(nn.Module):
    """f(x_t, t): predict the clean embedding from a diffused one.

    With `predict="sample"` the output is the prediction. With "correction" it is added to the input, so an untrained
    network leaves vectors unchanged. With "epsilon" it is the noise in the input (DDPM, eq. 11), with "v" the velocity
    (Salimans & Ho, 2022, eq. 9); the prediction follows from these:

        epsilon: (x_t - sqrt(1 - abar_t) out) / sqrt(abar_t)        v: sqrt(abar_t) x_t - sqrt(1 - abar_t) out
    """

    abar: Tensor

    def __init__(
        self,
        dim: int,
        blocks: int = 3,
        dropout: float = 0.1,
        predict: str = "correction",
        abar: Tensor | None = None,
        width: int = 2,
    ) -> None:
        """Args: abar: cumulative products of 1 - beta [T], needed to predict epsilon or v; width: multiple of `dim`."""
        super().__init__()
        width = width * dim
        self.predict = predict
        self.register_buffer("abar", torch.empty(0) if abar is None else abar, persistent=False)
        self.time_channels = width
        self.time_embed = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.input_proj = nn.Linear(dim, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width, dim, dropout) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.SiLU(), zero_weights(nn.Linear(width, dim)))

    def compute_conditioning(self, times: Iterable[int]) -> Conditioning:
        """Return the conditioning of timesteps for `forward`; it holds until the weights change."""
        return {time: list(self._condition_on_time(self.abar.new_tensor([time]), self.abar.dtype)) for time in times}

    def forward(self, x: Tensor, t: Tensor, *, conditioning: Conditioning | None = None) -> Tensor:
        """Return predicted clean embeddings [B, D] for diffused ones [B, D] at integer timesteps [B].

        A timestep shared by the batch may be given as [1], which avoids embedding it B times; if `conditioning` holds
        it, it is not embedded at all.
        """
        known = conditioning.get(int(t)) if conditioning and len(t) == 1 else None
        return self._predict(x, t, self._condition_on_time(t, x.dtype) if known is None else known)

    def _condition_on_time(self, t: Tensor, dtype: torch.dtype) -> Iterable[Tensor]:
        return self._condition_blocks(self._embed(t, self.time_embed, dtype))

    def _embed(self, t: Tensor, layers: nn.Module, dtype: torch.dtype) -> Tensor:
        # In float32 the angle of t = 999 is 6e-5 off, and the result 7e-6. Training does not need better, and float64
        # would add a hundredth to its time.
        sinusoids = timestep_embedding(t, self.time_channels, torch.float32 if self.training else torch.float64)
        embedded: Tensor = layers(sinusoids.to(dtype))
        return embedded

    def _condition_blocks(self, time: Tensor) -> Iterable[Tensor]:
        blocks: Any = self.res_blocks
        return (block.emb_layers(time) for block in blocks)

    def _predict(self, x: Tensor, t: Tensor, conditioning: Iterable[Tensor]) -> Tensor:
        h = self.input_proj(x)
        for block, time in zip(self.res_blocks, conditioning, strict=True):
            h = block(h, time)
        out: Tensor = self.out(h)
        if self.predict == "correction":
            return x + out
        return out if self.predict == "sample" else self._convert_to_clean(x, t, out)

    def _convert_to_clean(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """Return the clean embedding that a predicted noise or velocity implies."""
        signal, noise = self.abar[t].sqrt()[:, None], (1 - self.abar[t]).sqrt()[:, None]
        return (x - noise * out) / signal if self.predict == "epsilon" else signal * x - noise * out


def zero_weights(layer: nn.Linear) -> nn.Linear:
    """Set a layer's weights and bias to zero, and return it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
