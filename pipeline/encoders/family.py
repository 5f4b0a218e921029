"""The record of an encoder family: all that the rest of the project knows of an architecture."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

from pipeline.encoders.encoder import Network
from pipeline.utils.checkpoint import State


class Extra(NamedTuple):
    """Optional dependencies: pip install '.[<name>]' (docs/install.md)."""

    name: str
    package: str
    """Package that is there if the extra is installed."""

    @property
    def status(self) -> str:
        """The name, and whether the extra is installed."""
        return f"{self.name} ({'installed' if find_spec(self.package) else 'not installed'})"


HUB = Extra("hub", "huggingface_hub")


@dataclass(frozen=True)
class Family:
    """An architecture, its published weights, and the marks of its checkpoints."""

    name: str
    title: str
    checkpoints: str
    """Projects whose checkpoints it takes."""
    build: Callable[[State], Network]
    """Return the network as wide as these tensors are; the caller loads them."""
    signature: tuple[str, ...]
    """Tensors that only checkpoints of this family have together."""
    dim: int
    """Length of an embedding, unless a checkpoint says otherwise."""
    crops_per_second: float
    """Crops of 200 frames that one CPU core encodes in a second (benchmarks/encoders.py, one thread)."""
    weights: str | None = None
    """Address of published weights that can be fetched without asking."""
    sha256: str | None = None
    licence: str | None = None
    """Licence of the published weights."""
    example: str | None = None
    """Address of weights that fit, for families without published ones."""
    extra: Extra | None = None
    adapt: Callable[[State], State] = dict
    """Rename tensors that a file names differently."""

    @property
    def extras(self) -> str:
        """The optional dependencies of the network and its published weights, and their status."""
        extras = (self.extra, HUB if (self.weights or "").startswith("hf://") else None)
        return ", ".join(extra.status for extra in extras if extra)


def first_size(state: State, key: str, default: int) -> int:
    """Return the first size of a tensor, or the default if there is no such tensor."""
    return state[key].shape[0] if key in state and state[key].ndim else default
