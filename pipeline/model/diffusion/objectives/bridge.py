"""A bridge: a path from noisy to clean, instead of one from Gaussian noise (flow matching; Lipman et al., 2023)."""

import torch
from torch import Tensor

from pipeline.model.diffusion.network import DiffusionNetwork
from pipeline.model.diffusion.objective import Distance, Objective, spread, stack_inputs
from pipeline.model.diffusion.sampler import NoiseDraws, Predictor, Sampling


class BridgeNetwork(DiffusionNetwork):
    """f(z, t): predict the clean end of a path from noisy to clean, z = (1 - s) v + s x0 with s = t / T.

    With `predict="v"` the output is the path's velocity u = x0 - v (flow matching; Lipman et al., 2023, eq. 23), from
    which the end follows: z + (1 - s) u.
    """

    def _convert_to_clean(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        return x + (1 - t / len(self.abar))[:, None] * out


def bridge_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """Return the mean over v of |f(z_s, t) - x0| with z_s = (1 - s) v + s x0 and s = t / T.

    For a network that predicts the velocity u, this is the mean of (1 - s) |u - (x0 - v)|.
    """
    inputs, clean = stack_inputs(x0, views)
    t_each = spread(t, views.shape[1] + 1, 1)
    share = (t_each / len(abar))[:, None]
    return distance(network((1 - share) * inputs + share * clean, t_each), clean)


def infer_by_euler(
    network: Predictor, x: Tensor, sampling: Sampling, abar: Tensor, noise_draws: NoiseDraws = ()
) -> Tensor:
    """Follow the path from noisy [B, D] to clean by Euler steps: z <- z + (f(z, s T) - z) / (steps left)."""
    z = x
    for number in range(sampling.steps):
        t = torch.full((1,), number * len(abar) // sampling.steps, dtype=torch.long, device=x.device)
        z = z + (network(z, t) - z) / (sampling.steps - number)
    return z


OBJECTIVE = Objective(bridge_loss, infer_by_euler, BridgeNetwork)
