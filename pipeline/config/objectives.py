"""Registered objectives and distances, with the facts about them that settings are checked against; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.utils.plugins import find_plugins, load_plugin


@dataclass(frozen=True)
class ObjectiveTraits:
    """Facts about an objective that decide which settings it allows."""

    gaussian_noise: bool = False
    """The network sees Gaussian noise."""
    velocity: bool = False
    """The network sees points of a path, which has a velocity."""
    one_pass: bool = False
    """Inference is one pass of the network, without timesteps."""
    own_loss: bool = False
    """The loss ignores `train.loss` and `train.contrast`."""
    scaled_pairs: bool = False
    """Training needs vectors of one length (`train.scale: both`)."""


OBJECTIVES: Mapping[str, ObjectiveTraits] = {
    "seed": ObjectiveTraits(gaussian_noise=True, velocity=True),
    "gap": ObjectiveTraits(gaussian_noise=True, velocity=True, scaled_pairs=True),
    "dae": ObjectiveTraits(one_pass=True),
    "vmf-pl": ObjectiveTraits(one_pass=True, own_loss=True),
    "bridge": ObjectiveTraits(velocity=True),
}
"""Built-in objectives by name; each is implemented in a file of that name in `pipeline.model.diffusion.objectives`."""

DISTANCES: Mapping[str, str] = {"l1": "l1_loss", "l2": "mse_loss", "huber": "huber_loss"}
"""Functions of `torch.nn.functional` by the names of `train.loss`."""


def list_objectives() -> list[str]:
    """Return the names of all objectives: the built-in ones, then those of other packages."""
    return [*OBJECTIVES, *sorted(find_plugins("objectives").keys() - OBJECTIVES.keys())]


def read_traits(name: str) -> ObjectiveTraits:
    """Return the traits of an objective.

    Raises:
        ConfigError: there is no such objective, or a plugin has no traits.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    traits = getattr(load_plugin("objectives", name), "traits", None)
    if not isinstance(traits, ObjectiveTraits):
        raise ConfigError(f"objective {name}: no plugin registers an Objective with traits under this name.")
    return traits
