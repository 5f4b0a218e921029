"""A denoising autoencoder, without diffusion."""

import torch
from torch import Tensor

from pipeline.model.diffusion.objective import Distance, Objective, stack_inputs
from pipeline.model.diffusion.sampler import NoiseDraws, Predictor, Sampling


def predict_at_zero(network: Predictor, inputs: Tensor) -> Tensor:
    """Return f(v, 0) for inputs [N, D]."""
    return network(inputs, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device))


def dae_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """Return the mean over v of |f(v, 0) - x0|."""
    inputs, clean = stack_inputs(x0, views)
    return distance(predict_at_zero(network, inputs), clean)


def infer_in_one_pass(
    network: Predictor, x: Tensor, sampling: Sampling, abar: Tensor, noise_draws: NoiseDraws = ()
) -> Tensor:
    """Return f(x, 0); `sampling` is ignored."""
    return network(x, torch.zeros(1, dtype=torch.long, device=x.device))


OBJECTIVE = Objective(dae_loss, infer_in_one_pass)
