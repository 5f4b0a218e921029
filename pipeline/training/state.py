"""All that a step of training changes, as one object, and as a file."""

import copy
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.errors import OutputError
from pipeline.training.progress import Epoch
from pipeline.utils.atomic import replacing

FORMAT = "seed-training-3"


@dataclass
class State:
    """A training between two steps."""

    network: nn.Module
    ema: nn.Module
    """Of its weights, their moving average."""
    optimiser: Optimizer
    rate: LRScheduler
    noise: torch.Generator
    """Of timesteps and noise; dropout draws from torch's global one."""
    order: np.random.Generator
    """Of the pairs."""
    curve: list[Epoch]
    best: Epoch = field(init=False)
    best_weights: dict[str, Tensor] = field(init=False)
    """Averaged ones."""
    losses: list[Tensor] = field(default_factory=list)
    """Of the steps of the epoch that is under way."""
    norms: list[Tensor] = field(default_factory=list)
    epoch_order: Mapping[str, Any] = field(default_factory=dict)
    """The state of `order` as that epoch began, from which its batches come in the same order again."""

    def __post_init__(self) -> None:
        self._keep()

    def begin_epoch(self) -> int:
        """Go to the first step of the next epoch, unless one is under way, and return how many of its steps are done.

        `order` is left as the epoch began: that many batches are to be drawn again, and skipped.
        """
        if not self.losses:
            self.epoch_order = self.order.bit_generator.state
        self.order.bit_generator.state = dict(self.epoch_order)
        return len(self.losses)

    def end_epoch(self, epoch: Epoch) -> None:
        """Add an epoch to the curve, and keep the weights if it is the best."""
        self.curve.append(epoch)
        self.losses, self.norms = [], []
        if epoch.validation_loss < self.best.validation_loss:
            self._keep()

    def _keep(self) -> None:
        self.best, self.best_weights = self.curve[-1], copy.deepcopy(self.ema.state_dict())


def write_state(path: Path, state: State, key: str) -> None:
    """Write a training between two steps, whole or not at all.

    Args:
        path: of the file.
        state: to go on from.
        key: what the training depends on.

    Raises:
        OutputError: the disk is full.
    """
    moments = state.optimiser.state_dict()["state"]
    tensors = {
        **{f"network.{name}": value for name, value in state.network.state_dict().items()},
        **{f"ema.{name}": value for name, value in state.ema.state_dict().items()},
        **{f"best.{name}": value for name, value in state.best_weights.items()},
        **{f"optimiser.{at}.{name}": value for at, held in moments.items() for name, value in held.items()},
        **{f"random.{name}": value for name, value in _random(state).items()},
        "losses": torch.stack(state.losses) if state.losses else torch.empty(0),
        "norms": torch.stack(state.norms) if state.norms else torch.empty(0),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(tensors.items())}
    content = {
        "format": FORMAT,
        "key": key,
        "order": state.epoch_order if state.losses else state.order.bit_generator.state,
        "rate": state.rate.state_dict(),
        "curve": [asdict(epoch) for epoch in state.curve],
        "best": state.best.epoch,
    }
    content["checksum"] = _checksum(content, tensors)
    with replacing(path, path.with_suffix(".partial")) as temporary:
        try:
            save_file(tensors, temporary, {"seed": json.dumps(content, sort_keys=True)})
        except SafetensorError as error:  # its way of saying that the disk is full
            raise OutputError(
                f"{path}: cannot be written ({error}). Free some space and go on with --resume, or set"
                " train.save_every to 0."
            ) from error


def read_content(path: Path) -> dict[str, Any]:
    """Return what a file says of its training: `key`, `curve`, `best`, `rate` and `order`.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is no such file.
    """
    with safe_open(path, framework="pt") as file:
        content: dict[str, Any] = json.loads(file.metadata()["seed"])
    if content["format"] != FORMAT:
        raise ValueError("a state of another version")
    return content


def restore(path: Path, state: State) -> None:
    """Bring a training whose first step was not taken yet to where it was when it was written.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is no such file, or not as it was written.
    """
    content = read_content(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}  # not parts of the file
    if content.pop("checksum") != _checksum(content, tensors):
        raise ValueError("not as it was written")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    state.network.load_state_dict(part("network."))
    state.ema.load_state_dict(part("ema."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimiser.").items():
        at, _, what = name.partition(".")
        moments.setdefault(int(at), {})[what] = value
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})
    state.rate.load_state_dict(dict(content["rate"]))
    for group, rate in zip(state.optimiser.param_groups, content["rate"]["_last_lr"], strict=True):
        group["lr"] = rate
    device = next(state.network.parameters()).device
    state.curve[:] = [Epoch(**epoch) for epoch in content["curve"]]
    state.best = state.curve[content["best"]]
    state.best_weights = {name: value.to(device) for name, value in part("best.").items()}
    state.losses, state.norms = (list(tensors[name].to(device).unbind()) for name in ("losses", "norms"))
    state.epoch_order = state.order.bit_generator.state = content["order"]
    generators = part("random.")
    state.noise.set_state(generators["noise"])
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators:
        torch.cuda.set_rng_state(generators["cuda"], device)
    if "mps" in generators:
        torch.mps.set_rng_state(generators["mps"])


def _random(state: State) -> dict[str, Tensor]:
    """Return the state of torch's generators: ours, and those that dropout draws from."""
    found = {"noise": state.noise.get_state(), "cpu": torch.get_rng_state()}
    device = next(state.network.parameters()).device
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of JSON values, and of tensors with their names, types and shapes, in the order given."""
    found = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    for name, tensor in tensors.items():
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(bytes_of(tensor), found)
    return found


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, of any type and shape, without copying those of one on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
