"""Encoders by name: family, weights and front-end put together."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec

import torch
from torch import Tensor

from pipeline.config.encoder import EncoderDefinition
from pipeline.encoders.encoder import Encoder, Network, Precision
from pipeline.encoders.families import FAMILIES, Family, guess_families
from pipeline.encoders.features import SAMPLE_RATE
from pipeline.encoders.generic import GENERIC, load_generic
from pipeline.encoders.weights import Weights, locate
from pipeline.errors import ConfigError, WeightsError
from pipeline.utils.checkpoint import load_state, read_checkpoint, tensors_of, without_heads

EXTRAS = {"wavlm": "transformers", "onnx": "onnxruntime", "hub": "huggingface_hub"}
"""The package that tells whether an extra is installed."""

ENTRY_POINTS = "speaker_seed.encoders"
"""Group in which other packages register families: a `Network` class, or a function from a weight file to one."""


@dataclass(frozen=True)
class Description:
    """A family for people to read about."""

    name: str
    title: str
    weights: str | None
    needs: str


def families() -> list[str]:
    """Return the names of all families: ours, generic files, and those that other packages register."""
    return [family.name for family in describe_families()]


def describe_families() -> list[Description]:
    """Describe all families: ours, generic files, and those that other packages register."""
    ours = [
        Description(name, family.title, family.weights, _needs(family.extra, family.weights))
        for name, family in FAMILIES.items()
    ]
    files = [
        Description(name, f"any network as a {name} file, with a front-end that you declare", None, needs)
        for name, needs in (("torchscript", ""), ("onnx", _needs("onnx", None)))
    ]
    theirs = [Description(point.name, point.value, None, "") for point in entry_points(group=ENTRY_POINTS)]
    return ours + files + theirs


def _needs(extra: str | None, weights: str | None) -> str:
    """Return which extras a family needs, and whether they are there."""
    extras = [*([extra] if extra else []), *(["hub"] if weights and weights.startswith("hf://") else [])]
    return ", ".join(f"{name} ({'installed' if find_spec(EXTRAS[name]) else 'not installed'})" for name in extras)


def load_encoder(
    name: str,
    definition: EncoderDefinition | None = None,
    device: torch.device | None = None,
    precision: Precision = "float32",
) -> Encoder:
    """Return a frozen encoder, its weights checked and loaded.

    Args:
        name: what it is called in stores and tables; without a definition also its family.
        definition: what the name stands for.
        device: where it runs; the CPU if not given.
        precision: of its autocast, for GPUs.

    Raises:
        ConfigError: an unknown family, or a definition that does not go with it.
        WeightsError: weights that cannot be had, have another checksum, or do not fit.
    """
    chosen = definition or EncoderDefinition(family=name)
    build = _ours if chosen.family in FAMILIES else _from_file if chosen.family in GENERIC else _registered
    network, sha256 = build(name, chosen)
    if chosen.dim not in (None, network.dim):
        raise ConfigError(f"encoder {name}: gives {network.dim}-d embeddings, but its dim is set to {chosen.dim}.")
    if network.sample_rate != SAMPLE_RATE:
        raise ConfigError(f"encoder {name}: takes {network.sample_rate} Hz; only encoders of {SAMPLE_RATE} Hz will do.")
    # What a family leaves open is part of what makes its vectors.
    front_end = chosen.front_end.model_dump() | {"min_samples": network.min_samples} if chosen.front_end else None
    return Encoder(network, name, chosen.family, sha256, front_end, device, precision)


def _ours(name: str, definition: EncoderDefinition) -> tuple[Network, str]:
    """Build an encoder of one of `FAMILIES`."""
    family = FAMILIES[definition.family]
    _refuse_front_end(name, definition)
    path, sha256 = _locate(name, definition, family)
    state = family.adapt(tensors_of(read_checkpoint(path), path))
    network = family.build(state)
    load_state(network, without_heads(state, network), str(path), _advice(state))
    return network, sha256


def _advice(state: Mapping[str, Tensor]) -> str:
    guesses = guess_families(state)
    if not guesses:
        return (
            "it is of no family that `seed encoder list` knows; export it as ONNX or TorchScript, or get another file"
        )
    return f"it looks like family: {' or '.join(guesses)}"


def _locate(name: str, definition: EncoderDefinition, family: Family) -> Weights:
    if definition.weights is not None:
        return locate(definition.weights, definition.sha256)
    if family.weights is None:
        raise ConfigError(
            f"encoder {name}: family {definition.family} has no weights to fetch; give `weights` in params.yaml under"
            f" encoder.{name}."
        )
    return locate(family.weights, definition.sha256 or family.sha256)


def _refuse_front_end(name: str, definition: EncoderDefinition) -> None:
    if definition.front_end or definition.min_samples:
        raise ConfigError(
            f"encoder {name}: family {definition.family} has a front-end of its own; remove front_end and min_samples."
        )


def _from_file(name: str, definition: EncoderDefinition) -> tuple[Network, str]:
    """Build an encoder of one of the `GENERIC` families."""
    if definition.weights is None:
        raise ConfigError(
            f"encoder {name}: family {definition.family} needs a file; give `weights` in params.yaml under"
            f" encoder.{name}."
        )
    weights = locate(definition.weights, definition.sha256)
    return load_generic(definition.family, weights.path, definition, name), weights.sha256


def _registered(name: str, definition: EncoderDefinition) -> tuple[Network, str | None]:
    """Build an encoder of a family that another package registers."""
    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == definition.family]
    if not points:
        raise ConfigError(f"encoder {name}: unknown family {definition.family!r}; there are {', '.join(families())}.")
    _refuse_front_end(name, definition)
    weights = locate(definition.weights, definition.sha256) if definition.weights else None
    try:
        network = points[0].load()(weights.path if weights else None)
    except Exception as error:
        raise WeightsError(
            f"encoder {name}: {points[0].value} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    if not isinstance(network, Network):
        raise ConfigError(f"encoder {name}: {points[0].value} gave no pipeline.encoders.encoder.Network.")
    return network, weights.sha256 if weights else None
