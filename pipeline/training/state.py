"""The state of a training between two steps, in memory and as a file."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.errors import OutputError
from pipeline.training.progress import Epoch
from pipeline.utils.atomic import replacing
from pipeline.utils.tensor_file import read_content, read_tensor_file, write_tensor_file

FORMAT = "seed-training-4"


@dataclass
class TrainingState:
    """The state of a training between two steps."""

    network: nn.Module
    ema: nn.Module
    """The network with the moving average of the weights."""
    optimiser: Optimizer
    rate: LRScheduler
    noise: torch.Generator
    """The generator of timesteps and noise; dropout uses torch's global one."""
    order: np.random.Generator
    """The generator of the order of pairs."""
    curve: list[Epoch]
    best: Epoch = field(init=False)
    best_weights: dict[str, Tensor] = field(init=False)
    """The averaged weights of the best epoch."""
    losses: list[Tensor] = field(default_factory=list)
    """The losses of the steps of the current epoch."""
    norms: list[Tensor] = field(default_factory=list)
    epoch_order: Mapping[str, Any] = field(default_factory=dict)
    """The state of `order` at the start of the current epoch, to draw its batches in the same order again."""

    def __post_init__(self) -> None:
        self._keep_best()

    def begin_epoch(self) -> int:
        """Begin the next epoch, or continue the current one, and return how many of its steps are done.

        `order` is set back to the start of the epoch: draw and skip that many batches.
        """
        if not self.losses:
            self.epoch_order = self.order.bit_generator.state
        self.order.bit_generator.state = dict(self.epoch_order)
        return len(self.losses)

    def end_epoch(self, epoch: Epoch) -> None:
        """Add an epoch to the curve, and keep its weights if it is the best."""
        self.curve.append(epoch)
        self.losses, self.norms = [], []
        if epoch.validation_loss < self.best.validation_loss:
            self._keep_best()

    def _keep_best(self) -> None:
        self.best, self.best_weights = self.curve[-1], copy.deepcopy(self.ema.state_dict())


def write_state(path: Path, state: TrainingState, key: str) -> None:
    """Write the state of a training, atomically; raise OutputError if the disk is full.

    `key` is the fingerprint of everything that the training depends on.
    """
    moments = state.optimiser.state_dict()["state"]
    tensors = {
        **{f"network.{name}": value for name, value in state.network.state_dict().items()},
        **{f"ema.{name}": value for name, value in state.ema.state_dict().items()},
        **{f"best.{name}": value for name, value in state.best_weights.items()},
        **{f"optimiser.{at}.{name}": value for at, held in moments.items() for name, value in held.items()},
        **{f"random.{name}": value for name, value in _read_random_states(state).items()},
        "losses": torch.stack(state.losses) if state.losses else torch.empty(0),
        "norms": torch.stack(state.norms) if state.norms else torch.empty(0),
    }
    content = {
        "format": FORMAT,
        "key": key,
        "order": state.epoch_order if state.losses else state.order.bit_generator.state,
        "rate": state.rate.state_dict(),
        "curve": [asdict(epoch) for epoch in state.curve],
        "best": state.best.epoch,
    }
    with replacing(path, path.with_suffix(".partial")) as temporary:
        try:
            write_tensor_file(temporary, content, tensors)
        except SafetensorError as error:  # raised when the disk is full
            raise OutputError(
                f"{path}: cannot be written ({error}). Free some space and continue with --resume, or set"
                " train.save_every to 0."
            ) from error


def read_state_header(path: Path) -> dict[str, Any]:
    """Return the metadata of a state file: `key`, `curve`, `best`, `rate` and `order`.

    Raise OSError, SafetensorError, ValueError, KeyError or TypeError if it is not a state file.
    """
    content = read_content(path)
    if content["format"] != FORMAT:
        raise ValueError("a state of another version")
    return content


def restore_state(path: Path, state: TrainingState) -> None:
    """Set a training that has not taken a step to the state in a file.

    Raise the errors of `read_state_header`, for damaged files as well.
    """
    file = read_tensor_file(path)
    content, tensors = file.content, file.tensors
    if content["format"] != FORMAT or not file.has_digest:
        raise ValueError("a state of another version")

    def select(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    state.network.load_state_dict(select("network."))
    state.ema.load_state_dict(select("ema."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in select("optimiser.").items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = value
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})
    state.rate.load_state_dict(dict(content["rate"]))
    for group, rate in zip(state.optimiser.param_groups, content["rate"]["_last_lr"], strict=True):
        group["lr"] = rate
    device = next(state.network.parameters()).device
    state.curve[:] = [Epoch(**epoch) for epoch in content["curve"]]
    state.best = state.curve[content["best"]]
    state.best_weights = {name: value.to(device) for name, value in select("best.").items()}
    state.losses, state.norms = (list(tensors[name].to(device).unbind()) for name in ("losses", "norms"))
    state.epoch_order = state.order.bit_generator.state = content["order"]
    generators = select("random.")
    state.noise.set_state(generators["noise"])
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators:
        torch.cuda.set_rng_state(generators["cuda"], device)
    if "mps" in generators:
        torch.mps.set_rng_state(generators["mps"])


def _read_random_states(state: TrainingState) -> dict[str, Tensor]:
    """Return the states of torch's generators: the one of noise, and those that dropout uses."""
    states = {"noise": state.noise.get_state(), "cpu": torch.get_rng_state()}
    device = next(state.network.parameters()).device
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states
