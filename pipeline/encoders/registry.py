"""Encoders by name: architecture, published weights and their checksum."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from pipeline.encoders.ge2e import GE2E
from pipeline.encoders.weights import load_state, load_tensors, locate
from pipeline.errors import ConfigError, WeightsError


class Encoder(Protocol):
    """A frozen speaker encoder: waves in, embeddings [B, dim] out."""

    dim: int
    sample_rate: int

    def __call__(self, waves: Sequence[Tensor]) -> Tensor:
        """Return embeddings [B, dim] of B waves [S_i] at `sample_rate` Hz in [-1, 1], of any lengths."""


@dataclass(frozen=True)
class EncoderSpec:
    """How to build an encoder; `state` picks the tensors of the architecture out of the published file."""

    build: Callable[[], nn.Module]
    weights: str
    sha256: str
    licence: str
    state: Callable[[Mapping[str, Any]], Mapping[str, Tensor]]


def _ge2e_state(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    # similarity_* belongs to the training loss.
    state = checkpoint.get("model_state", {})
    return {key: value for key, value in state.items() if not key.startswith("similarity_")}


ENCODERS: Mapping[str, EncoderSpec] = {
    "ge2e": EncoderSpec(
        build=GE2E,
        weights="wheel:resemblyzer==0.1.4/resemblyzer/pretrained.pt",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        licence="Apache-2.0",
        state=_ge2e_state,
    ),
}


def encoder_spec(name: str) -> EncoderSpec:
    """Return the registry's entry of an encoder.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in ENCODERS:
        raise ConfigError(f"unknown encoder {name!r}; there are {', '.join(sorted(ENCODERS))}.")
    return ENCODERS[name]


def locate_weights(name: str, weights: str | None = None) -> Path:
    """Return an encoder's weight file, fetched and checked by its sha256; `weights` overrides where it comes from."""
    spec = encoder_spec(name)
    return locate(weights or spec.weights, spec.sha256)


def load_encoder(name: str, device: torch.device, weights: str | None = None) -> Encoder:
    """Return a frozen encoder in evaluation mode, its published weights checked and loaded.

    Raises:
        ConfigError: an unknown name.
        WeightsError: weights that cannot be had, have another checksum, or do not fit.
    """
    spec = encoder_spec(name)
    path = locate_weights(name, weights)
    module = spec.build()
    state = spec.state(load_tensors(path))
    if not state:
        raise WeightsError(f"{path}: holds no weights of {name}. Use the file named in the registry.")
    load_state(module, state, str(path))
    return cast(Encoder, module.eval().requires_grad_(False).to(device))
