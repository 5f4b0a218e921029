"""SEED's own objective: predict the clean embedding from a diffused one."""

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from pipeline.model.diffusion.objective import Distance, Objective, spread, stack_inputs
from pipeline.model.diffusion.sampler import NoiseDraws, Predictor, Sampling, ddim
from pipeline.model.diffusion.schedule import forward_diffuse


def seed_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance = l1_loss
) -> Tensor:
    """Return the distance between predicted and clean embeddings, over clean and noisy inputs (SEED, section 2).

    mean over v of |f(sqrt(abar_t) v + sqrt(1 - abar_t) noise, t) - x0| for v = x0, y^1 … y^K.

    Args:
        network: f, from [N, D] and timesteps [N] to [N, D].
        x0: clean embeddings [B, D].
        views: noisy embeddings [B, K, D] of the same speech.
        t: timesteps [B], shared by a row's inputs; or of each input [B, K + 1].
        noise: standard normal draws [B, D], likewise; or [B, K + 1, D].
        abar: cumulative products of 1 - beta [T].
        distance: L1 in the paper.
    """
    inputs, clean = stack_inputs(x0, views)
    count = views.shape[1] + 1
    t_each, noise_each = spread(t, count, 1), spread(noise, count, 2)
    return distance(network(forward_diffuse(inputs, t_each, noise_each, abar), t_each), clean)


def infer_by_ddim(
    network: Predictor, x: Tensor, sampling: Sampling, abar: Tensor, noise_draws: NoiseDraws = ()
) -> Tensor:
    """Diffuse embeddings [B, D] to `sampling.timestep` and denoise them by DDIM; average the results of all draws.

    Without draws, diffusion is noise-free.
    """
    if not noise_draws:
        return ddim(network, x, sampling, abar)
    return torch.stack([ddim(network, x, sampling, abar, noises) for noises in noise_draws]).mean(dim=0)


OBJECTIVE = Objective(seed_loss, infer_by_ddim)
