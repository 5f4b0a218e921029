"""From an embedding to its enhanced one, as each objective means it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.diffusion.network import GapDenoiser
from pipeline.diffusion.objective import Network
from pipeline.diffusion.sampler import Sampling, along_bridge, ddim

Draws = Sequence[Sequence[Tensor]]
"""Of noise: for each draw, the noises [B, D] that `ddim` takes."""
Inference = Callable[[nn.Module, Tensor, Sampling, Tensor, Draws], Tensor]
"""From the network, prepared embeddings [B, D], the steps, abar [T] and draws to enhanced embeddings [B, D]."""


def by_ddim(network: Network, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Go forward to `how.timestep` and back by DDIM; results of several draws are averaged."""
    if not draws:
        return ddim(network, x, how, abar)
    return torch.stack([ddim(network, x, how, abar, noises) for noises in draws]).mean(dim=0)


def told_the_gap(network: nn.Module, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """The same with a network that is told its own estimate of how far x is from clean, at every step."""
    assert isinstance(network, GapDenoiser)  # the configuration says so
    return by_ddim(partial(network, gap=network.estimate(x)), x, how, abar, draws)


def in_one_pass(network: nn.Module, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Return f(x, 0), however many steps are asked for."""
    out: Tensor = network(x, torch.zeros(1, dtype=torch.long, device=x.device))
    return out


def on_the_sphere(network: nn.Module, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Return f(x, 0) at length sqrt(D), as its loss looks at directions only."""
    out: Tensor = nn.functional.normalize(in_one_pass(network, x, how, abar), dim=1) * x.shape[1] ** 0.5
    return out


def over_the_bridge(network: nn.Module, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Follow the path from noisy to clean in `how.steps` Euler steps."""
    return along_bridge(network, x, how.steps, len(abar))


INFERENCES: Mapping[str, Inference] = {
    "seed": by_ddim,
    "gap": told_the_gap,
    "dae": in_one_pass,
    "vmf-pl": on_the_sphere,
    "bridge": over_the_bridge,
}
"""By the names of `train.objective`."""


def between(raw: Tensor, enhanced: Tensor, strength: float) -> Tensor:
    """Go so much of the way from raw to enhanced embeddings [B, D] on the sphere, at the raw ones' length.

    sin((1 - s) w) / sin(w) a + sin(s w) / sin(w) b for unit vectors a and b at the angle w (Shoemake, 1985). At 0 it is
    the raw embedding itself, at 1 the enhanced one at its own length.
    """
    if strength in (0.0, 1.0):
        return enhanced if strength else raw
    length = raw.norm(dim=1, keepdim=True)
    a, b = nn.functional.normalize(raw, dim=1), nn.functional.normalize(enhanced, dim=1)
    # The angle from sine and cosine halves, which unlike acos is exact for near ones.
    angle = 2 * torch.atan2((a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True))
    small = angle < 1e-3  # where both sines are their arguments
    angle = torch.where(small, torch.ones_like(angle), angle)
    ours, theirs = ((share * angle).sin() / angle.sin() for share in (1 - strength, strength))
    ours, theirs = torch.where(small, 1 - strength, ours), torch.where(small, strength, theirs)
    mixed: Tensor = length * nn.functional.normalize(ours * a + theirs * b, dim=1)
    return mixed


def infer(objective: str, network: nn.Module, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Return enhanced embeddings [B, D] of prepared ones [B, D].

    Args:
        objective: that the network was trained on.
        network: in evaluation mode.
        x: embeddings.
        how: timestep and steps.
        abar: cumulative products of 1 - beta [T].
        draws: of noise; without any, the way is noise-free.
    """
    return INFERENCES[objective](network, x, how, abar, draws)
