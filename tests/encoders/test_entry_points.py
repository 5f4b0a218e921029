"""The example of a package that registers an encoder family."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import setuptools.build_meta
import soundfile
import torch

from pipeline.config.encoder import EncoderDefinition
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.registry import families, load_encoder
from pipeline.errors import WeightsError
from stages.cli import main
from tests.conftest import voice

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_encoder"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder on the path, with the example's module and the metadata that its build backend writes for it."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    info = tmp_path / setuptools.build_meta.prepare_metadata_for_build_wheel(str(tmp_path))
    assert (info / "top_level.txt").read_text() == "own_encoder\n"
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def own(weights: str | None = None) -> Encoder:
    return load_encoder("own", EncoderDefinition(family="own_encoder", weights=weights))


def test_the_example_encodes_once_it_is_installed(place: Path) -> None:
    assert "own_encoder" in families()
    lengths = (16000, 20000, 16000, 30)
    waves = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]
    encoder = own()
    embeddings = encoder(waves)
    assert (encoder.dim, embeddings.shape, encoder.weights_sha256) == (64, (4, 64), None)
    assert embeddings.isfinite().all()
    assert embeddings.std(dim=0).mean() > 0.05
    torch.testing.assert_close(embeddings, torch.cat([encoder([wave]) for wave in waves]), atol=1e-5, rtol=0)

    torch.save(encoder.network.state_dict(), "own.pt")
    loaded = own("own.pt")
    assert torch.equal(loaded(waves), embeddings)
    assert len(loaded.weights_sha256 or "") == 64
    torch.save({}, "wrong.pt")
    with pytest.raises(WeightsError, match=r"encoder own: family own_encoder failed: RuntimeError: "):
        own("wrong.pt")


def test_the_commands_know_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pitch, seed in (("a", 110, 0), ("b", 113, 1), ("c", 240, 2)):
        soundfile.write(f"{name}.wav", voice(pitch, 1.0, seed), 16_000)
    Path("params.yaml").write_text("encoder:\n  own: {family: own_encoder}\n")
    main(["encoder", "list"])
    assert "own_encoder:build" in capsys.readouterr().out
    with suppress(SystemExit):  # random weights may not tell speakers apart
        main(["encoder", "check", "own", "--audio", "a.wav", "b.wav", "c.wav"])
    out = capsys.readouterr().out
    assert "own (own_encoder)\n" in out
    assert f"{'dimension:':28}64\n" in out


def test_the_document_shows_the_example() -> None:
    shown = (ROOT / "docs" / "encoders.md").read_text()
    for name in ("pyproject.toml", "own_encoder.py"):
        assert (EXAMPLE / name).read_text() in shown
