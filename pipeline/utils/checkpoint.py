"""Checkpoints: read without running code, stripped of remnants of training, and loaded strictly."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import WeightsError
from pipeline.utils.shortage import raise_shortage
from pipeline.utils.tensor_file import check_readable

State = Mapping[str, Tensor]

_CONTAINERS = ("model", "state_dict", "model_state_dict", "model_state", "embedding_model", "net", "network", "encoder")
_WRAPPERS = ("module.", "__S__.", "_orig_mod.")  # DataParallel, clovaai's trainer, torch.compile: on any key
_NESTS = ("model.", "encoder.", "speaker_encoder.", "embedding_model.", "spk_model.", "backbone.", "net.", "resnet.")
_HEADS = re.compile(
    r"__L__\.|projection\.|similarity_|(\w+\.)?(classifier|loss|criterion|objective|margin|arcface|aam\w*)[._]"
)
"""Names of tensors that only training uses: classifiers and losses."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU: safetensors by suffix, else a PyTorch file of tensors and plain containers.

    Raises:
        WeightsError: the file is missing or damaged, is not a dictionary, or holds code.
        ResourceError: the machine lacks handles or memory, or refuses access.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}; check the path")
    safe = path.suffix.lower() == ".safetensors"
    try:
        check_readable(path)
        with warnings.catch_warnings(action="ignore"):  # torch warns before it refuses
            loaded = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything: IndexError, struct.error, AttributeError …
        raise_shortage(error, path)
        raise WeightsError(f"cannot read weights {path}: {_why_unreadable(error)}") from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"weights {path} hold a {type(loaded).__name__}; give a file with a dictionary of tensors")
    return loaded


def find_tensors(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, without the containers and prefixes that trainers add.

    Raises:
        WeightsError: the checkpoint holds no tensors.
    """
    content: Mapping[str, Any] = checkpoint
    while not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            first = ", ".join(map(str, list(content)[:3])) or "nothing"
            raise WeightsError(f"weights {path} hold no tensors, but {first}; give an encoder's checkpoint")
        content = inner
    state = {_unwrapped(str(key)): value for key, value in content.items() if isinstance(value, Tensor)}
    while nest := _common_nest(state):
        state = {key.removeprefix(nest): value for key, value in state.items()}
    return state


def drop_heads(state: State, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors without classifiers and losses that are not part of `module`."""
    own = module.state_dict()
    return {key: value for key, value in state.items() if key in own or not _HEADS.match(key)}


def load_state(module: nn.Module, state: State, source: str, advice: str = "") -> None:
    """Load all of `state` into `module`, in place; if `check_state` raises WeightsError, `module` is unchanged."""
    check_state(module, state, source, advice)
    module.load_state_dict(state, strict=True)


def check_state(module: nn.Module, state: State, source: str, advice: str = "") -> None:
    """Raise WeightsError, with the origin `source` and an advice, unless names and shapes match one to one."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [str(key) for key in state if key not in own]
    shapes = {key: (_shape(state[key]), _shape(own[key])) for key in own if key in state}
    misshaped = [f"{key} {given} instead of {needed}" for key, (given, needed) in shapes.items() if given != needed]
    keys_by_fault = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    faults = [f"{len(keys)} {fault} ({_first(keys)})" for fault, keys in keys_by_fault.items() if keys]
    if faults:
        raise WeightsError(
            f"weights {source} do not fit {type(module).__name__}: {'; '.join(faults)}; "
            f"{advice or 'give weights of exactly this architecture'}"
        )


def _unwrapped(key: str) -> str:
    while prefix := next((prefix for prefix in _WRAPPERS if key.startswith(prefix)), None):
        key = key.removeprefix(prefix)
    return key


def _common_nest(state: State) -> str | None:
    """Return a prefix that all tensors except those of heads share."""
    keys = [key for key in state if not _HEADS.match(key)]
    return next((nest for nest in _NESTS if keys and all(key.startswith(nest) for key in keys)), None)


def _why_unreadable(error: Exception) -> str:
    """Return the reason why a checkpoint was refused and the remedy, on one line."""
    text = " ".join(str(error).split())
    if forbidden := re.search(r"GLOBAL (\S+)", text):
        return f"it wants to run {forbidden[1]}, which is refused; export its tensors as safetensors if you trust it"
    text = text.rpartition("WeightsUnpickler error: ")[2]  # drop torch's own advice to trust the file
    text = f"{text[:117]}..." if len(text) > 120 else text
    return f"it is truncated, damaged or of another format ({text or type(error).__name__}); get it again"


def _shape(value: object) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first(keys: Sequence[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")
