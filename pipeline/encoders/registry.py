"""Encoders by name, built from a family, weights and a front-end."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config.encoder import EncoderDefinition
from pipeline.encoders.encoder import Encoder, Network, Precision
from pipeline.encoders.families import FAMILIES, guess_families
from pipeline.encoders.features import SAMPLE_RATE
from pipeline.encoders.generic import GenericNetwork, TorchScriptNetwork
from pipeline.encoders.onnx import OnnxNetwork
from pipeline.encoders.weights import Weights, find_weights
from pipeline.errors import ConfigError, WeightsError
from pipeline.utils.checkpoint import drop_heads, find_tensors, load_state, read_checkpoint
from pipeline.utils.plugins import find_plugins, load_plugin
from pipeline.utils.shortage import raise_shortage

GENERIC: Mapping[str, type[GenericNetwork]] = {"torchscript": TorchScriptNetwork, "onnx": OnnxNetwork}
"""Families of files."""

PLUGINS = "encoders"
"""The kind of plugins that register families: a `Network` class, or a function from a weight file to a network."""


class FamilyDescription(NamedTuple):
    """The row of a family in a list of all families."""

    name: str
    title: str
    checkpoints: str = ""
    weights: str = "give your own"
    extras: str = ""


def families() -> list[str]:
    """Return the names of all families: built-in ones, generic files and plugins."""
    return [*FAMILIES, *GENERIC, *find_plugins(PLUGINS)]


def describe_families() -> list[FamilyDescription]:
    """Describe all families: built-in ones, generic files and plugins."""
    rows = []
    for family in FAMILIES.values():
        weights = family.weights or "give your own" + (f", such as {family.example}" if family.example else "")
        rows.append(FamilyDescription(family.name, family.title, family.checkpoints, weights, family.extras))
    for name, network in GENERIC.items():
        extras = network.extra.status if network.extra else ""
        rows.append(FamilyDescription(name, "any, with a front-end that you declare", f"{name} files", extras=extras))
    return rows + [FamilyDescription(name, point.value) for name, point in find_plugins(PLUGINS).items()]


def load_encoder(
    name: str,
    definition: EncoderDefinition | None = None,
    device: torch.device | None = None,
    precision: Precision = "float32",
) -> Encoder:
    """Return a frozen encoder, its weights checked and loaded.

    Args:
        name: name of the encoder in stores and tables; without a definition also its family.
        definition: family, weights and front-end.
        device: the CPU by default.
        precision: precision of autocast, for GPUs.

    Raises:
        ConfigError: an unknown family, or a definition that does not suit it.
        WeightsError: weights that are missing, have another checksum, or do not fit.
    """
    chosen = definition or EncoderDefinition(family=name)
    built_in, generic = chosen.family in FAMILIES, chosen.family in GENERIC
    load = _load_built_in if built_in else _load_file if generic else _load_plugin_family
    network, sha256 = load(name, chosen)
    if chosen.dim not in (None, network.dim):
        raise ConfigError(f"encoder {name}: gives {network.dim}-d embeddings, but its dim is set to {chosen.dim}.")
    if network.sample_rate != SAMPLE_RATE:
        raise ConfigError(f"encoder {name}: takes {network.sample_rate} Hz; only {SAMPLE_RATE} Hz is supported.")
    # A declared front-end is part of the identity of the vectors.
    front_end = chosen.front_end.model_dump() | {"min_samples": network.min_samples} if chosen.front_end else None
    return Encoder(network, name, chosen.family, sha256, front_end, device, precision)


def _load_built_in(name: str, definition: EncoderDefinition) -> tuple[Network, str]:
    family = FAMILIES[definition.family]
    _require_no_front_end(name, definition)
    path, sha256 = _get_weights(name, definition)
    state = family.adapt(find_tensors(read_checkpoint(path), path))
    network = family.build(state)
    load_state(network, drop_heads(state, network), str(path), _suggest_family(state))
    return network, sha256


def _suggest_family(state: Mapping[str, Tensor]) -> str:
    if guesses := guess_families(state):
        return f"it looks like family: {' or '.join(guesses)}"
    return "it is of no family that `seed encoder list` shows; export it as ONNX or TorchScript, or use another file"


def _get_weights(name: str, definition: EncoderDefinition) -> Weights:
    family = FAMILIES[definition.family]
    if definition.weights is not None:
        return find_weights(definition.weights, definition.sha256)
    if family.weights is None:
        raise ConfigError(
            f"encoder {name}: family {definition.family} has no published weights to fetch; give `weights` in"
            f" params.yaml under encoder.{name}."
        )
    return find_weights(family.weights, definition.sha256 or family.sha256)


def _require_no_front_end(name: str, definition: EncoderDefinition) -> None:
    if definition.front_end or definition.min_samples:
        raise ConfigError(
            f"encoder {name}: family {definition.family} has its own front-end; remove front_end and min_samples."
        )


def _load_file(name: str, definition: EncoderDefinition) -> tuple[Network, str]:
    if definition.weights is None:
        raise ConfigError(
            f"encoder {name}: family {definition.family} needs a file; give `weights` in params.yaml under"
            f" encoder.{name}."
        )
    weights = find_weights(definition.weights, definition.sha256)
    return GENERIC[definition.family](weights.path, definition, name), weights.sha256


def _load_plugin_family(name: str, definition: EncoderDefinition) -> tuple[Network, str | None]:
    build = load_plugin(PLUGINS, definition.family)
    if build is None:
        raise ConfigError(f"encoder {name}: unknown family {definition.family!r}; there are {', '.join(families())}.")
    _require_no_front_end(name, definition)
    weights = find_weights(definition.weights, definition.sha256) if definition.weights else None
    try:
        network = build(weights.path if weights else None)
    except Exception as error:
        raise_shortage(error, f"encoder {name}")
        reason = " ".join(str(error).split())[:300]
        problem = f"failed: {type(error).__name__}: {reason}"
        raise WeightsError(f"encoder {name}: family {definition.family} {problem}") from error
    if not isinstance(network, Network):
        problem = "did not return a pipeline.encoders.encoder.Network."
        raise ConfigError(f"encoder {name}: family {definition.family} {problem}")
    return network, weights.sha256 if weights else None
