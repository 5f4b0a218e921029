"""The way back: DDIM steps, and SEED's single one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.model.diffusion.objective import Predictor


def ddim_step(
    x_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """Go from timestep t back to s < t along a predicted clean sample (DDIM, eq. 12).

    Args:
        x_t: diffused embeddings [B, D].
        x0: the network's prediction of the clean ones [B, D].
        abar_t: abar at t, a scalar.
        abar_s: abar at s, a scalar; 1 ends at the prediction itself.
        eta: 0 is deterministic, 1 has DDPM's variance.
        noise: standard normal draws [B, D]; needed where eta > 0.
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
    """How to go back to the clean embedding."""

    timestep: int = 50
    """Where the way begins."""
    steps: int = 1
    eta: float = 0.0
    """0 is DDIM, 1 has DDPM's variance."""
    spacing: str = "trailing"
    """Of the steps, as in diffusers: leading, trailing or linspace."""
    noise: int = 0
    """Draws of noise, whose results are averaged; 0 goes the way without any."""
    strength: float | None = 1.0
    """Share of the way on the sphere from the raw to the enhanced embedding; None: as training found it."""


def step_times(timestep: int, steps: int, spacing: str) -> list[int]:
    """Return the timesteps of `steps` steps from `timestep` down, spaced as diffusers spaces those of T = timestep + 1.

    `trailing` begins at `timestep`, `leading` ends at 0, `linspace` does both; a single step is taken at `timestep`.
    (Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2024, table 2.)
    """
    count = timestep + 1
    if steps == 1:
        return [timestep]
    if spacing == "linspace":
        return [int(t) for t in np.linspace(0, timestep, steps).round()[::-1]]
    if spacing == "leading":
        return [int(t) for t in (np.arange(steps) * (count // steps)).round()[::-1]]
    down = np.arange(count, 0, -count / steps)[:steps]  # rounding can leave a step more, at -1
    return [int(t) for t in np.round(down) - 1]


def ddim(network: Predictor, x: Tensor, how: Sampling, abar: Tensor, noises: Sequence[Tensor] = ()) -> Tensor:
    """Enhance embeddings [B, D]: diffuse them to the first of `step_times`, and go back by as many DDIM steps.

    As in diffusers, every step goes down by the same number of timesteps; below 0 is the clean end.

    Args:
        network: f, from [N, D] and timesteps [1], the same for all, to predicted clean embeddings [N, D].
        x: embeddings, noisy or clean [B, D].
        how: the steps.
        abar: cumulative products of 1 - beta [T].
        noises: standard normal draws [B, D], the first for the way forward, one for every step where eta > 0; without
            any, the way forward is noise-free.
    """
    times, ratio = step_times(how.timestep, how.steps, how.spacing), (how.timestep + 1) // how.steps
    here = abar[times[0]]
    x_t = here.sqrt() * x
    if noises:
        x_t = x_t + (1 - here).sqrt() * noises[0]
    for number, time in enumerate(times):
        x0 = network(x_t, torch.full((1,), time, dtype=torch.long, device=x.device))
        if time < ratio or how.steps == 1:
            x_t = x0  # below 0, where abar is 1: a step ends at the prediction, whatever eta is
            continue
        noise = noises[1 + number] if how.eta > 0 else None
        x_t = ddim_step(x_t, x0, abar[time], abar[time - ratio], how.eta, noise)
    return x_t


def along_bridge(network: Predictor, x: Tensor, steps: int, timesteps: int) -> Tensor:
    """Follow the path from noisy [B, D] to clean by Euler steps: z <- z + (f(z, s T) - z) / (steps left)."""
    z = x
    for number in range(steps):
        t = torch.full((1,), number * timesteps // steps, dtype=torch.long, device=x.device)
        z = z + (network(z, t) - z) / (steps - number)
    return z
