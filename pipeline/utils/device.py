"""Where tensors live."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device of a name such as cpu or cuda:1; `auto` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: no such device, or torch cannot use it here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:<index> or mps.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {name!r} is not there: torch finds no Metal device. Use cpu.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Use cpu."
        )
    return device


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Have torch make float32 tensors on the CPU where nothing else is asked for, whatever our caller has it make."""
    dtype = torch.get_default_dtype()
    if dtype is torch.float32 and torch.get_default_device().type == "cpu":
        yield
        return
    try:
        torch.set_default_dtype(torch.float32)
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
