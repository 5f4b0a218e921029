"""The way back: DDIM steps, and SEED's single one."""

import torch
from torch import Tensor

from pipeline.diffusion.objective import Network


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


def one_step(network: Network, x: Tensor, timestep: int, abar: Tensor, noise: Tensor | None = None) -> Tensor:
    """Enhance embeddings [B, D] by one reverse step from `timestep` to the predicted sample (SEED, section 2.3).

    Without `noise` [B, D] the forward step is noise-free, x_t = sqrt(abar_t) x, and the result a function of x alone.
    """
    t = torch.full((len(x),), timestep, dtype=torch.long, device=x.device)
    x_t = abar[timestep].sqrt() * x
    if noise is not None:
        x_t = x_t + (1 - abar[timestep]).sqrt() * noise
    return ddim_step(x_t, network(x_t, t), abar[timestep], torch.ones_like(abar[timestep]))
