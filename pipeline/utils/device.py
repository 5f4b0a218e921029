"""Choose the device and the default type of tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device of a name such as cpu or cuda:1; `auto` is CUDA if available, else the CPU.

    Raises:
        ConfigError: the device is unknown, or torch cannot use it on this machine.
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
        raise ConfigError(f"device {name!r} is not available: torch finds no Metal device. Use cpu.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"device {name!r} is not available: torch sees {torch.cuda.device_count()} CUDA devices. Use cpu."
        )
    return device


@contextmanager
def default_float32_cpu() -> Iterator[None]:
    """Make float32 and the CPU torch's defaults, whatever the caller has set."""
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
