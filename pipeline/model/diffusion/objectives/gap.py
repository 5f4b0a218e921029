"""SEED with a network that also gets an estimate of the distance between its input and the clean embedding."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import l1_loss

from pipeline.model.diffusion.network import Conditioning, DiffusionNetwork, zero_weights
from pipeline.model.diffusion.objective import Distance, Objective, stack_inputs
from pipeline.model.diffusion.objectives.seed import infer_by_ddim, seed_loss
from pipeline.model.diffusion.sampler import NoiseDraws, Predictor, Sampling


class GapNetwork(DiffusionNetwork):
    """A network that estimates how corrupted its input was before diffusion, and is conditioned on that."""

    def __init__(self, dim: int, *shape: Any, **options: Any) -> None:
        super().__init__(dim, *shape, **options)
        self.gap = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1), nn.Softplus())
        self.gap_embed = nn.Sequential(nn.Linear(self.time_channels, dim), nn.SiLU(), zero_weights(nn.Linear(dim, dim)))

    def estimate(self, x: Tensor) -> Tensor:
        """Return about |x - x0| / sqrt(D) [B] for embeddings [B, D] that are not diffused."""
        gap: Tensor = self.gap(x).squeeze(1)
        return gap

    def compute_conditioning(self, times: Iterable[int]) -> Conditioning:
        """Return nothing: the conditioning depends on the input as well."""
        return {}

    def forward(
        self, x: Tensor, t: Tensor, gap: Tensor | None = None, *, conditioning: Conditioning | None = None
    ) -> Tensor:
        """Return predicted clean embeddings [B, D], see `DiffusionNetwork`; `gap` [B] is estimated if None."""
        gap = self.estimate(x) if gap is None else gap
        time = self._embed(t, self.time_embed, x.dtype)
        return self._predict(x, t, self._condition_blocks(time + self._embed(1000 * gap, self.gap_embed, x.dtype)))


def gap_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """Return `seed_loss`, conditioned on the network's gap estimates g(v), plus the L1 error of these.

    The true gap is |v - x0| / sqrt(D). No gradient flows through the conditioning.
    """
    assert isinstance(network, GapNetwork)
    inputs, clean = stack_inputs(x0, views)
    gap = network.estimate(inputs)
    detached = gap.detach()
    true = (inputs - clean).norm(dim=1) / inputs.shape[1] ** 0.5
    conditioned = seed_loss(lambda x, at: network(x, at, detached), x0, views, t, noise, abar, distance)
    return conditioned + l1_loss(gap, true)


def infer_with_gap(
    network: Predictor, x: Tensor, sampling: Sampling, abar: Tensor, noise_draws: NoiseDraws = ()
) -> Tensor:
    """Run `infer_by_ddim`, conditioned at every step on the gap that the network estimates from x."""
    assert isinstance(network, GapNetwork)
    return infer_by_ddim(partial(network, gap=network.estimate(x)), x, sampling, abar, noise_draws)


OBJECTIVE = Objective(gap_loss, infer_with_gap, GapNetwork)
