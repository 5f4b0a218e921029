"""From an embedding to its enhanced one, as each objective means it."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.diffusion.network import GapDenoiser
from pipeline.diffusion.objective import Network
from pipeline.diffusion.sampler import Sampling, along_bridge, ddim


def infer(
    objective: str, network: nn.Module, x: Tensor, how: Sampling, abar: Tensor, draws: Sequence[Sequence[Tensor]] = ()
) -> Tensor:
    """Return enhanced embeddings [B, D] of prepared ones [B, D].

    Args:
        objective: that the network was trained on, see `objective.LOSSES`.
        network: in evaluation mode.
        x: embeddings.
        how: timestep and steps; `dae` and `vmf-pl` take one pass of the network whatever it says, `bridge` its steps.
        abar: cumulative products of 1 - beta [T].
        draws: the noises of each draw, see `ddim`; results are averaged.
    """
    if objective in ("dae", "vmf-pl"):
        out: Tensor = network(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        return out
    if objective == "bridge":
        return along_bridge(network, x, how.steps, len(abar))
    predict: Network = partial(network, gap=network.estimate(x)) if isinstance(network, GapDenoiser) else network
    if not draws:
        return ddim(predict, x, how, abar)
    return torch.stack([ddim(predict, x, how, abar, noises) for noises in draws]).mean(dim=0)
