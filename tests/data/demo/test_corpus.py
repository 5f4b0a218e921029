import sys
from pathlib import Path

import pytest
import soundfile

from pipeline.data.demo import espeak
from pipeline.data.demo.corpus import make_demo
from pipeline.errors import CorpusError
from tests.conftest import tree_bytes


def test_a_small_corpus_is_complete(tmp_path: Path) -> None:
    """That it is the same for any number of processes, tests/data/test_fetch.py looks at."""
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pyroomacoustics")
    calls: list[tuple[int, int]] = []
    sizes = {"train_voices": 2, "test_voices": 2, "babble_voices": 1, "utterances": 2, "background": 0.0}
    make_demo(tmp_path, lambda done, total: calls.append((done, total)), **sizes)
    files = tree_bytes(tmp_path)
    assert calls == [(done, len(files)) for done in range(1, len(files) + 1)]

    folders = {name.rsplit("/", 1)[0] for name in files if "/" in name}
    assert {name for name in folders if not name.startswith("speech")} == {
        f"{kind}/{split}" for kind in ("noise", "music", "rooms") for split in ("train", "test")
    }
    assert len({name for name in folders if name.startswith("speech/train")}) == 2
    assert len({name for name in folders if name.startswith("speech/test")}) == 2
    assert "speech/train/fast_en-us/00.flac" in files
    assert "synthetic" in files["README.txt"].decode()
    for name in files:
        if name != "README.txt":
            info = soundfile.info(tmp_path / name)
            assert (info.samplerate, info.channels) == (16000, 1)
            assert info.subtype == ("FLOAT" if name.startswith("rooms") else "PCM_16")


def test_a_folder_that_is_not_there_or_not_empty(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not a folder"):
        make_demo(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="not empty"):
        make_demo(tmp_path)


@pytest.mark.parametrize("package", ["espeakng_loader", "pyroomacoustics"])
def test_a_missing_package_is_named_before_anything_is_written(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CorpusError, match=rf"{package}.*pip install '\.\[demo\]'"):
        make_demo(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_espeak_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "espeakng_loader.py").write_text("raise ImportError('absent')\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    job = espeak.SpeechJob("en-us", 160, 50, 50, "Good morning.", str(tmp_path / "x.flac"))
    with pytest.raises(CorpusError, match=r"pip install '\.\[demo\]'"):
        espeak.synthesise([job])
