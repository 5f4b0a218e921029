"""A compact form of model files: half precision, and one timestep.

Enhancement in one step uses the network at one timestep. The file therefore stores the output of the time-embedding
layers at that timestep instead of the layers themselves, which are two fifths of a small network.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.seed_model import SeedModel

PREFIX = "conditioning."
"""Start of the names of the vectors that the blocks add at the timestep."""
_TIME = re.compile(r"network\.(?:time_embed|res_blocks\.(\d+)\.emb_layers)\.")
_BIAS = "network.res_blocks.{}.emb_layers.1.bias"


def compact_state(model: SeedModel, timestep: int) -> dict[str, Tensor]:
    """Return a model's tensors in half precision, at one timestep.

    Raises:
        ConfigError: the network conditions on more than the timestep.
    """
    vectors = [vector for each in model.compute_conditioning(timestep).values() for vector in each]
    state = {name: tensor for name, tensor in model.state_dict().items() if not _TIME.match(name)}
    if len(vectors) != model.settings.network.blocks or any(_is_foreign(name) for name in state):
        raise ConfigError(f"objective {model.settings.objective}: its network cannot be written in the compact form.")
    state |= {f"{PREFIX}{block}": vector[0] for block, vector in enumerate(vectors)}
    return {name: tensor if tensor.ndim == 0 else tensor.half() for name, tensor in state.items()}


def expand_state(state: Mapping[str, Tensor], model: SeedModel) -> dict[str, Tensor]:
    """Return the tensors of `model` from those of a file, in single precision; those of a file of the usual form as is.

    The time embedding of a compact file becomes constant: what it was at the file's timestep.
    """
    if not any(name.startswith(PREFIX) for name in state):
        return dict(state)
    whole = {name: tensor.float() for name, tensor in state.items() if not name.startswith(PREFIX)}
    for name, tensor in model.state_dict().items():
        if _TIME.match(name):
            whole[name] = torch.zeros_like(tensor)
    for name, tensor in state.items():
        if name.startswith(PREFIX):
            whole[_BIAS.format(name.removeprefix(PREFIX))] = tensor.float()
    return whole


def _is_foreign(name: str) -> bool:
    """Return True for a tensor that the plain network does not have."""
    return name.startswith("network.") and not re.match(
        r"network\.(input_proj|res_blocks\.\d+\.(in|out)_layers|out)\.", name
    )
