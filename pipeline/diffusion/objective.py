"""What SEED's network is trained on."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import l1_loss

from pipeline.diffusion.schedule import forward_diffuse

Network = Callable[[Tensor, Tensor], Tensor]


def seed_loss(network: Network, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """L1 between the prediction and the clean embedding, averaged over clean and noisy inputs (SEED, section 2).

    mean over v of |f(sqrt(abar_t) v + sqrt(1 - abar_t) noise, t) - x0| for v = x0, y^1 … y^K, all at the same t.

    Args:
        network: f, from [N, D] and timesteps [N] to [N, D].
        x0: clean embeddings [B, D].
        views: noisy embeddings [B, K, D] of the same speech.
        t: timesteps [B].
        noise: standard normal draws [B, D], shared by a row's views.
        abar: cumulative products of 1 - beta [T].
    """
    inputs = views.new_empty(views.shape[0], views.shape[1] + 1, views.shape[2])
    inputs[:, 0], inputs[:, 1:] = x0, views
    count = inputs.shape[1]
    t_each, noise_each = t.repeat_interleave(count), noise.repeat_interleave(count, dim=0)
    diffused = forward_diffuse(inputs.flatten(0, 1), t_each, noise_each, abar)
    return l1_loss(network(diffused, t_each), x0.repeat_interleave(count, dim=0))
