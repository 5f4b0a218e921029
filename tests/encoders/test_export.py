import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.encoder import EncoderDefinition, KaldiFbankInput
from pipeline.encoders.architectures import campplus as architecture
from pipeline.encoders.architectures.campplus import CAMPlusPlus
from pipeline.encoders.architectures.ge2e import GE2E
from pipeline.encoders.encoder import Encoder, Network
from pipeline.encoders.export import export_onnx
from pipeline.encoders.features import KaldiFbank
from pipeline.encoders.registry import load_encoder
from pipeline.errors import ConfigError, ExportError
from pipeline.utils.atomic import sha256_of
from tests.conftest import voice
from tests.encoders.oracles import randomised
from tests.project import ENDURANCE

SHAPES = ((1, 1.0), (4, 1.0), (3, 2.015), (1, 4.3), (2, 4.3))  # below, near and beyond segments of the mask


def loaded(path: Path) -> Encoder:
    fbank = KaldiFbankInput(kind="kaldi_fbank")
    definition = EncoderDefinition(family="onnx", weights=str(path), front_end=fbank, min_samples=720)
    return load_encoder("own", definition)


def batch(count: int, seconds: float) -> list[Tensor]:
    return [torch.from_numpy(voice(90 + 40 * index, seconds, index)) for index in range(count)]


def agrees(path: Path, own: Encoder) -> None:
    exported = loaded(path)
    assert exported.dim == own.dim
    assert exported.network.one_by_one is False
    for count, seconds in SHAPES:
        waves = batch(count, seconds)
        expected = own(waves)
        torch.testing.assert_close(exported(waves), expected, atol=1e-4, rtol=0)
        # Unless embeddings differ by much more than that, agreement would say nothing.
        assert count == 1 or expected.std(dim=0).mean() > 0.05
    short = [*batch(2, 0.045), *batch(1, 0.02)]
    # Over a frame or three, what is pooled hardly varies, and the root of that makes more of the last bits.
    torch.testing.assert_close(exported(short), own(short), atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def small() -> CAMPlusPlus:
    """CAM++ with fewer layers, and random weights that keep the signal's variance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architecture, "BLOCKS", ((1, 1), (1, 2), (1, 2)))
        network = CAMPlusPlus(24)
    randomised(network)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return network


@pytest.fixture(scope="module")
def exported(small: CAMPlusPlus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "below" / "small.onnx"
    export_onnx(small, path)
    return path


def test_onnxruntime_gives_what_torch_gives(small: CAMPlusPlus, exported: Path) -> None:
    agrees(exported, Encoder(small, "own", "campplus", None))


@pytest.mark.endurance
@pytest.mark.skipif(not ENDURANCE, reason="takes a minute: make endurance")
def test_published_campplus_runs_in_onnxruntime(campplus: Encoder, tmp_path: Path) -> None:
    export_onnx(campplus.network, tmp_path / "campplus.onnx")
    agrees(tmp_path / "campplus.onnx", campplus)


def test_files_tell_nothing_of_where_they_were_made(exported: Path) -> None:
    content = exported.read_bytes()
    assert b'File "' not in content
    assert str(Path(architecture.__file__).parent).encode() not in content
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


class Sized(Network):
    """A small network whose `embed` can be made to depend on what it was traced with."""

    dim, min_samples = 4, 400

    def __init__(self, how: str = "well") -> None:
        super().__init__()
        self.how = how
        self.front_end = KaldiFbank(mels=20)
        self.linear = nn.Linear(20, 4)

    def features(self, waves: Tensor) -> Tensor:
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        y = self.linear(features.abs().mean(dim=1))
        if self.how == "batch":
            return torch.stack([y[row] for row in range(len(y))])
        if self.how == "noise":
            return y + torch.rand_like(y)
        return y


def test_the_network_is_left_as_it_is_and_files_repeat(tmp_path: Path) -> None:
    network = Sized().train()
    paths = [tmp_path / "1.onnx", tmp_path / "2.onnx"]
    paths[0].write_text("replaced")
    for path in paths:
        export_onnx(network, path)
    assert sha256_of(paths[0]) == sha256_of(paths[1])
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Sized("batch"), "Sized cannot be exported to .*static shape of 2"),
        (Sized("noise"), "Sized was not exported to .*values .* off for 1 waves"),
        *([(GE2E(), "GE2E cannot be exported to .*static shape of 2")] if ENDURANCE else []),
    ],
)
def test_what_cannot_be_exported_says_so_and_leaves_nothing(network: Network, said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"^{said}") as refused:
        export_onnx(network, tmp_path / "x.onnx")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_the_extra_is_optional(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}; pip install '\.\[onnx\]'"):
        export_onnx(Sized(), tmp_path / "x.onnx")
