"""From an embedding to its enhanced one, as each objective means it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.model.diffusion.network import GapNetwork
from pipeline.model.diffusion.objective import Predictor
from pipeline.model.diffusion.sampler import Sampling, along_bridge, ddim

Draws = Sequence[Sequence[Tensor]]
"""Of noise: for each draw, the noises [B, D] that `ddim` takes."""
Inference = Callable[[Predictor, Tensor, Sampling, Tensor, Draws], Tensor]
"""From the network, prepared embeddings [B, D], the steps, abar [T] and draws to enhanced embeddings [B, D]."""


def by_ddim(network: Predictor, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Go forward to `how.timestep` and back by DDIM; results of several draws are averaged."""
    if not draws:
        return ddim(network, x, how, abar)
    return torch.stack([ddim(network, x, how, abar, noises) for noises in draws]).mean(dim=0)


def told_the_gap(network: Predictor, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """The same with a network that is told its own estimate of how far x is from clean, at every step."""
    assert isinstance(network, GapNetwork)  # the configuration says so
    return by_ddim(partial(network, gap=network.estimate(x)), x, how, abar, draws)


def in_one_pass(network: Predictor, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Return f(x, 0), however many steps are asked for."""
    out: Tensor = network(x, torch.zeros(1, dtype=torch.long, device=x.device))
    return out


def on_the_sphere(network: Predictor, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
    """Return f(x, 0) at length sqrt(D), as its loss looks at directions only."""
    out: Tensor = nn.functional.normalize(in_one_pass(network, x, how, abar), dim=1) * x.shape[1] ** 0.5
    return out


def over_the_bridge(network: Predictor, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
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


def interpolate(raw: Tensor, enhanced: Tensor, strength: float) -> Tensor:
    """Go so much of the way from raw to enhanced embeddings [B, D] on the sphere, at the raw ones' length.

    sin((1 - s) w) / sin(w) a + sin(s w) / sin(w) b for unit vectors a and b at the angle w (Shoemake, 1985), where
    sin(w) is left to the length. At 0 it is the raw embedding itself, at 1 the enhanced one at its own length.
    """
    if strength in (0.0, 1.0):
        return enhanced if strength else raw
    length = _norm(raw)
    a, b = raw / length.clamp(min=1e-12), enhanced / _norm(enhanced).clamp(min=1e-12)
    # The angle from sine and cosine halves, which unlike acos is exact for near ones; below 1e-3 sines are as good as
    # their arguments, so that any angle gives the same.
    angle = (2 * torch.atan2(_norm(a - b), _norm(a + b))).clamp(min=1e-3)
    mixed = torch.addcmul(((1 - strength) * angle).sin() * a, (strength * angle).sin(), b)
    return mixed * (length / _norm(mixed).clamp(min=1e-12))


def _norm(x: Tensor) -> Tensor:
    """Return the lengths [B, 1] of vectors [B, D]."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return lengths


def infer(objective: str, network: Predictor, x: Tensor, how: Sampling, abar: Tensor, draws: Draws = ()) -> Tensor:
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
