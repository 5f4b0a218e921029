"""The record that an objective is, and what the objectives share. Each is a file in `objectives`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from pipeline.config.objectives import DISTANCES, OBJECTIVES, ObjectiveTraits
from pipeline.errors import ConfigError
from pipeline.model.diffusion.network import DiffusionNetwork
from pipeline.model.diffusion.sampler import NoiseDraws, Predictor, Sampling
from pipeline.utils.plugins import load_plugin

Distance = Callable[[Tensor, Tensor], Tensor]
"""Mean distance between predicted and clean embeddings [N, D]."""
Loss = Callable[[Predictor, Tensor, Tensor, Tensor, Tensor, Tensor, Distance], Tensor]
"""Loss of network f, clean x0 [B, D], noisy views [B, K, D], timesteps [B], noise [B, D], abar [T] and a distance.

With `train.noise_per: view`, the clean and noisy inputs of a pair have timesteps [B, K + 1] and noise [B, K + 1, D]."""
Inference = Callable[[Predictor, Tensor, Sampling, Tensor, NoiseDraws], Tensor]
"""Enhanced embeddings [B, D] from network f, prepared embeddings [B, D], sampling, abar [T] and draws of noise."""


@dataclass(frozen=True)
class Objective:
    """The loss, inference and network of an objective."""

    loss: Loss
    infer: Inference
    network: type[DiffusionNetwork] = DiffusionNetwork
    traits: ObjectiveTraits | None = None
    """The traits of a plugin's objective; those of built-in ones are in `pipeline.config.objectives`."""


def load_objective(name: str) -> Objective:
    """Import an objective, built-in or of a plugin; raise ConfigError if there is none or its import fails."""
    if name in OBJECTIVES:
        module = import_module(f"pipeline.model.diffusion.objectives.{name.replace('-', '_')}")
        objective: Objective = module.OBJECTIVE
        return objective
    plugin = load_plugin("objectives", name)
    if not isinstance(plugin, Objective):
        raise ConfigError(f"objective {name}: no plugin registers an Objective under this name.")
    return plugin


def load_distance(name: str) -> Distance:
    """Return the distance that `train.loss` names."""
    distance: Distance = getattr(torch.nn.functional, DISTANCES[name])
    return distance


def stack_inputs(x0: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
    """Return clean and noisy inputs [B * (K + 1), D], row by row, and the clean embedding of each."""
    inputs = views.new_empty(views.shape[0], views.shape[1] + 1, views.shape[2])
    inputs[:, 0], inputs[:, 1:] = x0, views
    return inputs.flatten(0, 1), x0.repeat_interleave(inputs.shape[1], dim=0)


def spread(values: Tensor, count: int, dims: int) -> Tensor:
    """Return one value for each of `count` inputs of a pair [B * count, ...].

    Args:
        values: values of the pairs [B, ...], or of all inputs [B, count, ...].
        count: number of inputs of a pair.
        dims: number of dimensions of the values of the pairs.
    """
    return values.repeat_interleave(count, dim=0) if values.ndim == dims else values.flatten(0, 1)
