"""What SEED's network is trained on: the paper's objective, and others on the same network and vectors."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss, normalize

from pipeline.model.diffusion.network import GapNetwork
from pipeline.model.diffusion.schedule import forward_diffuse

Predictor = Callable[[Tensor, Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]
Loss = Callable[[Predictor, Tensor, Tensor, Tensor, Tensor, Tensor, Distance], Tensor]
"""Of the network f, clean [B, D] and noisy embeddings [B, K, D], timesteps [B], draws [B, D], abar [T], a distance."""

DISTANCES: Mapping[str, Distance] = {"l1": l1_loss, "l2": mse_loss, "huber": huber_loss}
"""Between a prediction and the clean embedding, by the names of `train.loss`: a mean over both."""


def seed_loss(
    network: Predictor,
    x0: Tensor,
    views: Tensor,
    t: Tensor,
    noise: Tensor,
    abar: Tensor,
    distance: Distance = l1_loss,
) -> Tensor:
    """Distance between the prediction and the clean embedding, over clean and noisy inputs (SEED, section 2).

    mean over v of |f(sqrt(abar_t) v + sqrt(1 - abar_t) noise, t) - x0| for v = x0, y^1 … y^K, all at the same t.

    Args:
        network: f, from [N, D] and timesteps [N] to [N, D].
        x0: clean embeddings [B, D].
        views: noisy embeddings [B, K, D] of the same speech.
        t: timesteps [B].
        noise: standard normal draws [B, D], shared by a row's views.
        abar: cumulative products of 1 - beta [T].
        distance: L1 in the paper.
    """
    inputs, clean = _inputs(x0, views)
    count = views.shape[1] + 1
    t_each, noise_each = t.repeat_interleave(count), noise.repeat_interleave(count, dim=0)
    return distance(network(forward_diffuse(inputs, t_each, noise_each, abar), t_each), clean)


def gap_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """`seed_loss` of a network that is told how far its input is from clean, as it estimates that itself.

    The estimate g(v) of |v - x0| / sqrt(D) is learnt by L1 beside it, and told without a gradient.
    """
    assert isinstance(network, GapNetwork)  # the configuration says so
    inputs, clean = _inputs(x0, views)
    gap = network.estimate(inputs)
    told = gap.detach()
    true = (inputs - clean).norm(dim=1) / inputs.shape[1] ** 0.5
    conditioned = seed_loss(lambda x, at: network(x, at, told), x0, views, t, noise, abar, distance)
    return conditioned + l1_loss(gap, true)


def dae_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """A denoising autoencoder, without diffusion: mean over v of |f(v, 0) - x0|."""
    inputs, clean = _inputs(x0, views)
    return distance(network(inputs, _at_zero(inputs)), clean)


def vmf_pl_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """Mean over v of log(|f(v, 0) - x0|^2 + 1e-6), both at unit length: few large errors weigh less.

    A prediction shorter than 1 is left as it is: that of an untrained `sample` is zero, where the direction's gradient
    would be so large that AdamW hardly moved those weights again.
    """
    inputs, clean = _inputs(x0, views)
    gap = normalize(network(inputs, _at_zero(inputs)), dim=1, eps=1.0) - normalize(clean, dim=1)
    return (gap.square().sum(dim=1) + 1e-6).log().mean()


def bridge_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """A path from noisy to clean in place of one from Gaussian noise (flow matching; Lipman et al., 2023).

    z_s = (1 - s) v + s x0 with s = t / T; the network predicts where the path ends: mean over v of |f(z_s, t) - x0|.
    Of a velocity u, which says that by z_s + (1 - s) u, this is the mean of (1 - s) |u - (x0 - v)|.
    """
    inputs, clean = _inputs(x0, views)
    t_each = t.repeat_interleave(views.shape[1] + 1)
    share = (t_each / len(abar))[:, None]
    return distance(network((1 - share) * inputs + share * clean, t_each), clean)


LOSSES: Mapping[str, Loss] = {
    "seed": seed_loss,
    "gap": gap_loss,
    "dae": dae_loss,
    "vmf-pl": vmf_pl_loss,
    "bridge": bridge_loss,
}
"""By the names of `train.objective`."""


def _inputs(x0: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
    """Return clean and noisy inputs [B * (K + 1), D], row by row, and what each should become."""
    inputs = views.new_empty(views.shape[0], views.shape[1] + 1, views.shape[2])
    inputs[:, 0], inputs[:, 1:] = x0, views
    return inputs.flatten(0, 1), x0.repeat_interleave(inputs.shape[1], dim=0)


def _at_zero(inputs: Tensor) -> Tensor:
    return torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
