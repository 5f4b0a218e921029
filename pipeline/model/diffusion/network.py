"""SEED's denoising network: residual blocks on a vector that are told the time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Conditioning = Mapping[int, Sequence[Tensor]]
"""What each residual block is told at some timesteps: [blocks] of [1, width]."""


def timestep_embedding(t: Tensor, channels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return sinusoids [B, channels] of timesteps [B] with periods 2 pi to 20,000 pi: cosines first, then sines.

    Of an odd number of channels the last is zero. They are float32; angles are computed in `dtype`, where the device
    has it.
    """
    dtype = torch.float32 if t.device.type == "mps" else dtype
    exponents = torch.arange(channels // 2, dtype=dtype, device=t.device) / (channels // 2)
    angles = t.to(dtype)[:, None] * torch.exp(-math.log(10_000) * exponents)
    parts = [angles.cos(), angles.sin()] + ([angles.new_zeros(len(angles), 1)] if channels % 2 else [])
    return torch.cat(parts, dim=1).float()


class ResidualBlock(nn.Module):
    """h + MLP(h, time): the time embedding is added between the two halves; zero at the start of training."""

    def __init__(self, width: int, time_dim: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, width))
        self.out_layers = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), _zeroed(nn.Linear(width, width))
        )

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """Return [B, width] for hidden vectors [B, width] and what `emb_layers` make of a time [B or 1, width]."""
        out: Tensor = h + self.out_layers(self.in_layers(h) + told)
        return out


class DiffusionNetwork(nn.Module):
    """f(x_t, t): predict the clean embedding from a diffused one.

    With `predict="sample"` the output is the prediction; with "correction" it is added to the input, so that a network
    that has learnt nothing leaves vectors alone; with "epsilon" it is the noise in the input (DDPM, eq. 11), and with
    "v" the velocity (Salimans & Ho, 2022, eq. 9), from which the prediction follows:

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
        """Args: abar: cumulative products of 1 - beta [T], needed to predict epsilon or v; width: in dims."""
        super().__init__()
        width = width * dim
        self.predict = predict
        self.register_buffer("abar", torch.empty(0) if abar is None else abar, persistent=False)
        self.time_channels = width
        self.time_embed = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.input_proj = nn.Linear(dim, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width, dim, dropout) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.SiLU(), _zeroed(nn.Linear(width, dim)))

    def conditioning(self, times: Iterable[int]) -> Conditioning:
        """Return what can be computed of timesteps before there is any input, for as long as the weights stay."""
        return {time: list(self._of_time(self.abar.new_tensor([time]), self.abar.dtype)) for time in times}

    def forward(self, x: Tensor, t: Tensor, *, told: Conditioning | None = None) -> Tensor:
        """Return predicted clean embeddings [B, D] for diffused ones [B, D] at integer timesteps [B].

        One timestep for all may be given as [1], which spares embedding it B times; what `told` has of it, any time.
        """
        known = told.get(int(t)) if told and len(t) == 1 else None
        return self._predicted(x, t, self._of_time(t, x.dtype) if known is None else known)

    def _of_time(self, t: Tensor, dtype: torch.dtype) -> Iterable[Tensor]:
        """Return what each block is told of timesteps [B]."""
        return self._for_blocks(self._embedded(t, self.time_embed, dtype))

    def _embedded(self, t: Tensor, layers: nn.Module, dtype: torch.dtype) -> Tensor:
        # In float32 the angle of t = 999 is 6e-5 off, and the result 7e-6. That is nothing to training, where float64
        # would take as long as a hundredth of the rest.
        sinusoids = timestep_embedding(t, self.time_channels, torch.float32 if self.training else torch.float64)
        embedded: Tensor = layers(sinusoids.to(dtype))
        return embedded

    def _for_blocks(self, time: Tensor) -> Iterable[Tensor]:
        blocks: Any = self.res_blocks
        return (block.emb_layers(time) for block in blocks)

    def _predicted(self, x: Tensor, t: Tensor, told: Iterable[Tensor]) -> Tensor:
        h = self.input_proj(x)
        for block, time in zip(self.res_blocks, told, strict=True):
            h = block(h, time)
        out: Tensor = self.out(h)
        if self.predict == "correction":
            return x + out
        return out if self.predict == "sample" else self._clean(x, t, out)

    def _clean(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """Return the clean embedding that a predicted noise or velocity means."""
        signal, noise = self.abar[t].sqrt()[:, None], (1 - self.abar[t]).sqrt()[:, None]
        return (x - noise * out) / signal if self.predict == "epsilon" else signal * x - noise * out


class BridgeNetwork(DiffusionNetwork):
    """f(z, t): predict the clean end of a path from noisy to clean, z = (1 - s) v + s x0 with s = t / T.

    With `predict="v"` the output is the path's velocity u = x0 - v (flow matching; Lipman et al., 2023, eq. 23), from
    which the end follows: z + (1 - s) u.
    """

    def _clean(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        return x + (1 - t / len(self.abar))[:, None] * out


class GapNetwork(DiffusionNetwork):
    """A network that is also told how corrupted its input was before diffusion, and can estimate that."""

    def __init__(self, dim: int, *shape: Any, **options: Any) -> None:
        super().__init__(dim, *shape, **options)
        self.gap = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1), nn.Softplus())
        self.gap_embed = nn.Sequential(nn.Linear(self.time_channels, dim), nn.SiLU(), _zeroed(nn.Linear(dim, dim)))

    def estimate(self, x: Tensor) -> Tensor:
        """Return about |x - x0| / sqrt(D) [B] for embeddings [B, D] that are not diffused."""
        gap: Tensor = self.gap(x).squeeze(1)
        return gap

    def conditioning(self, times: Iterable[int]) -> Conditioning:
        """Return nothing: what blocks are told depends on the input as well."""
        return {}

    def forward(self, x: Tensor, t: Tensor, gap: Tensor | None = None, *, told: Conditioning | None = None) -> Tensor:
        """Return predicted clean embeddings [B, D], see `Rnnoise`; `gap` [B] is the input's, estimated if None."""
        gap = self.estimate(x) if gap is None else gap
        time = self._embedded(t, self.time_embed, x.dtype)
        return self._predicted(x, t, self._for_blocks(time + self._embedded(1000 * gap, self.gap_embed, x.dtype)))


NETWORKS: Mapping[str, type[DiffusionNetwork]] = {"gap": GapNetwork, "bridge": BridgeNetwork}
"""By the names of `train.objective`, where they need another than `Rnnoise`."""


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
