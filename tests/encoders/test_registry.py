import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.encoder import EncoderDefinition, KaldiFbankInput
from pipeline.encoders.architectures.campplus import CAMPlusPlus
from pipeline.encoders.architectures.ecapa_seed import SeedEcapa
from pipeline.encoders.architectures.ecapa_speechbrain import SpeechBrainEcapa
from pipeline.encoders.architectures.resnet_se import ResNetSE34V2
from pipeline.encoders.architectures.resnet_wespeaker import WeSpeakerResNet34
from pipeline.encoders.encoder import Encoder, Network
from pipeline.encoders.families import FAMILIES, guess_families
from pipeline.encoders.features import KaldiFbank
from pipeline.encoders.registry import describe_families, families, load_encoder
from pipeline.encoders.weights import sha256_of
from pipeline.errors import ConfigError, SeedError, WeightsError
from pipeline.utils.checkpoint import find_tensors

NETWORKS = {
    "campplus": lambda: CAMPlusPlus(64),
    "campplus_wespeaker": lambda: CAMPlusPlus(96, KaldiFbank(window="hamming", scale=32_768), 1e-7),
    "resnetse34v2": lambda: ResNetSE34V2(48),
    "resnet34_wespeaker": lambda: WeSpeakerResNet34(40),
    "ecapa_seed": lambda: SeedEcapa(24, 128),
    "ecapa_speechbrain": lambda: SpeechBrainEcapa(56, 128),
    "ecapa_3dspeaker": lambda: SpeechBrainEcapa(56, 128, KaldiFbank()),
}
"""Networks of other widths than the published ones: those are to be read from the file."""


def saved(path: Path, network: nn.Module, heads: bool = True) -> Path:
    """Save a network the way trainers do: in a container, with prefixes, a classifier and a loss."""
    state: dict[str, Tensor] = {f"module.{key}": value for key, value in network.state_dict().items()}
    if heads:
        state |= {"module.classifier.weight": torch.ones(9, 4), "module.__L__.W": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 12}, path)
    return path


def one_line(error: pytest.ExceptionInfo[SeedError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_gives_back_the_network_it_was_saved_from(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: Network = NETWORKS[name]().eval()
    path = saved(tmp_path / "net.pt", network)
    encoder = load_encoder("mine", EncoderDefinition(family=name, weights=str(path)))
    assert (encoder.name, encoder.family, encoder.dim) == ("mine", name, network.dim)
    assert encoder.weights_sha256 == sha256_of(path)
    wave = 0.1 * torch.randn(20_000)
    with torch.inference_mode():
        torch.testing.assert_close(encoder([wave]), network(wave[None]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_another_familys_checkpoint_is_refused_and_recognised(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt", NETWORKS[name]())
    other = "resnetse34v2" if "resnetse" not in name else "ecapa_seed"
    with pytest.raises(WeightsError, match="do not fit") as error:
        load_encoder("mine", EncoderDefinition(family=other, weights=str(path)))
    assert name in one_line(error).rpartition("it looks like family: ")[2]


def test_signatures_tell_families_apart() -> None:
    twins = [{"campplus", "campplus_wespeaker"}, {"ecapa_speechbrain", "ecapa_3dspeaker"}]
    for name, make in NETWORKS.items():
        guesses = set(guess_families(make().state_dict()))
        assert name in guesses
        assert guesses == {name} or guesses in twins


def test_a_stranger_is_said_to_be_one(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="of no family") as error:
        load_encoder("mine", EncoderDefinition(family="campplus", weights=str(tmp_path / "net.pt")))
    assert "missing (head.conv1.weight" in one_line(error)


class Touch:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_or_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path, proof = tmp_path / "net.pt", tmp_path / "proof"
    definition = EncoderDefinition(family="campplus", weights=str(path))
    torch.save(CAMPlusPlus().state_dict() | {"extra": Touch(proof)}, path)
    with pytest.raises(WeightsError, match="wants to run") as error:
        load_encoder("mine", definition)
    one_line(error)
    assert not proof.exists()
    saved(path, CAMPlusPlus())
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="truncated, damaged") as error:
        load_encoder("mine", definition)
    one_line(error)


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"family": "nope"}, "unknown family 'nope'; there are ge2e, campplus"),
        ({"family": "resnetse34v2"}, "no published weights to fetch; give `weights` in params.yaml under encoder.mine"),
        ({"family": "onnx"}, "needs a file"),
        ({"family": "ge2e", "dim": 512}, "gives 256-d embeddings, but its dim is set to 512"),
        ({"family": "ge2e", "min_samples": 16_000}, "has its own front-end"),
        ({"family": "ge2e", "front_end": KaldiFbankInput(kind="kaldi_fbank")}, "has its own front-end"),
    ],
)
def test_a_definition_that_makes_no_sense_is_one_clear_line(definition: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_encoder("mine", EncoderDefinition.model_validate(definition))
    assert one_line(error).startswith("encoder mine: ")
    assert says in one_line(error)


def test_weights_of_another_checksum_never_load(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt", CAMPlusPlus())
    with pytest.raises(WeightsError, match="expected 0000"):
        load_encoder("mine", EncoderDefinition(family="campplus", weights=str(path), sha256="0" * 64))


@pytest.mark.parametrize(("family", "package", "extra"), [("wavlm_xvector", "transformers", "wavlm")])
def test_a_missing_extra_is_named(
    family: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"layer_weights": torch.zeros(13)}, tmp_path / "net.pt")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as error:
        load_encoder("mine", EncoderDefinition(family=family, weights=str(tmp_path / "net.pt")))
    assert f"pip install '.[{extra}]' (docs/install.md)" in one_line(error)


def test_all_families_are_described() -> None:
    described = {family.name: family for family in describe_families()}
    assert list(described) == families()
    assert {*FAMILIES, "onnx", "torchscript"} <= set(described)
    assert described["wavlm_ecapa"].extras.startswith("wavlm (")
    assert described["ecapa_speechbrain"].extras.startswith("hub (")


def test_heads_are_dropped_but_not_unknown_tensors(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(CAMPlusPlus().state_dict() | {"attention.weight": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"1 unexpected \(attention.weight\)"):
        load_encoder("mine", EncoderDefinition(family="campplus", weights=str(path)))


def test_published_weights_fit_as_they_are(ge2e: Encoder, campplus: Encoder) -> None:
    for encoder in (ge2e, campplus):
        assert encoder.weights_sha256 == FAMILIES[encoder.name].sha256


def test_containers_without_tensors_are_refused() -> None:
    with pytest.raises(WeightsError, match="hold no tensors"):
        find_tensors({"model": {"epoch": 1}}, Path("net.pt"))
