"""The reverse process: DDIM steps, and SEED's single step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Predictor = Callable[[Tensor, Tensor], Tensor]
"""A network f, from [N, D] and timesteps [N or 1] to predicted clean embeddings [N, D]."""
NoiseDraws = Sequence[Sequence[Tensor]]
"""For each draw, the noises [B, D] that `ddim` takes."""


def ddim_step(
    x_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """Step back from timestep t to s < t along a predicted clean sample (DDIM, eq. 12).

    Args:
        x_t: diffused embeddings [B, D].
        x0: the network's prediction of the clean ones [B, D].
        abar_t: abar at t, a scalar.
        abar_s: abar at s, a scalar; at 1 the step returns the prediction.
        eta: 0 is deterministic, 1 has DDPM's variance.
        noise: standard normal draws [B, D]; needed if eta > 0.
    """
    epsilon = (x_t - abar_t.sqrt() * x0) / (1 - abar_t).sqrt()
    sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)).sqrt()
    x_s = abar_s.sqrt() * x0 + (1 - abar_s - sigma**2).clamp(min=0).sqrt() * epsilon
    if eta > 0:
        if noise is None:
            raise ValueError("a DDIM step with eta > 0 needs noise")
        x_s = x_s + sigma * noise
    return x_s


@dataclass(frozen=True)
class Sampling:
    """The settings of the reverse process."""

    timestep: int = 50
    """The timestep that embeddings are diffused to."""
    steps: int = 1
    eta: float = 0.0
    """The variance of the reverse steps: 0 is DDIM, 1 has that of DDPM."""
    spacing: str = "trailing"
    """The spacing of the steps, as in diffusers: leading, trailing or linspace."""
    noise: int = 0
    """Number of draws of noise, whose results are averaged; 0 is noise-free."""
    strength: float | None = 1.0
    """The interpolation weight of the enhanced embedding, see `interpolate`; None uses the model's own."""


def step_times(timestep: int, steps: int, spacing: str) -> list[int]:
    """Return the timesteps of `steps` steps from `timestep` down, spaced as diffusers spaces those of T = timestep + 1.

    `trailing` starts at `timestep`, `leading` ends at 0, `linspace` does both. A single step starts at `timestep`.
    (Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2024, table 2.)
    """
    count = timestep + 1
    if steps == 1:
        return [timestep]
    if spacing == "linspace":
        return [int(t) for t in np.linspace(0, timestep, steps).round()[::-1]]
    if spacing == "leading":
        return [int(t) for t in (np.arange(steps) * (count // steps)).round()[::-1]]
    down = np.arange(count, 0, -count / steps)[:steps]  # rounding can add a step at -1
    return [int(t) for t in np.round(down) - 1]


def ddim(network: Predictor, x: Tensor, sampling: Sampling, abar: Tensor, noises: Sequence[Tensor] = ()) -> Tensor:
    """Enhance embeddings [B, D]: diffuse them to the first of `step_times`, then denoise them by DDIM steps.

    As in diffusers, every step subtracts the same number of timesteps; below 0 is the clean end.

    Args:
        network: predictor f; called with timesteps [1].
        x: embeddings, noisy or clean [B, D].
        sampling: timestep, number of steps, spacing and eta.
        abar: cumulative products of 1 - beta [T].
        noises: standard normal draws [B, D]: the first for diffusion, then one for every step if eta > 0. If empty,
            diffusion is noise-free.
    """
    times = step_times(sampling.timestep, sampling.steps, sampling.spacing)
    ratio = (sampling.timestep + 1) // sampling.steps
    first = abar[times[0]]
    x_t = first.sqrt() * x
    if noises:
        x_t = x_t + (1 - first).sqrt() * noises[0]
    for number, time in enumerate(times):
        x0 = network(x_t, torch.full((1,), time, dtype=torch.long, device=x.device))
        if time < ratio or sampling.steps == 1:
            x_t = x0  # the step ends below 0, where abar is 1: at the prediction, for any eta
            continue
        noise = noises[1 + number] if sampling.eta > 0 else None
        x_t = ddim_step(x_t, x0, abar[time], abar[time - ratio], sampling.eta, noise)
    return x_t
