"""Recordings whose header or level cannot be right: read alike by every command, and said."""

import csv
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.manifest import read_manifest
from pipeline.store.embedding_store import EmbeddingStore
from tests.conftest import WriteVoice, tree_bytes, voice
from tests.stages.test_cli import run

UNKNOWN = "its header gives no length (size 0x7ffff000), so all 38,400 bytes to its end are read"
LOUD = "where full scale is 1"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_voice: WriteVoice) -> Path:
    """A working folder of a good file, the same with the header of a stream, a loud one, and their manifest."""
    monkeypatch.chdir(tmp_path)
    write_voice(tmp_path / "audio/good.wav", 120, 1.2, 1)
    content = bytearray((tmp_path / "audio/good.wav").read_bytes())
    struct.pack_into("<I", content, 40, 0x7FFFF000)
    (tmp_path / "audio/piped.wav").write_bytes(content)
    wave = voice(150, 1.2, 2)
    soundfile.write(tmp_path / "audio/loud.wav", wave * np.float32(32_768), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "audio/peak.wav", wave / np.abs(wave).max(), 16_000, subtype="FLOAT")
    return tmp_path


def list_audio(capsys: pytest.CaptureFixture[str]) -> str:
    code, _, err = run(capsys, "manifest", "--audio", "audio", "--pattern", "*.wav", "--out", "m.csv")
    assert code == 0, err
    return err


def test_every_command_says_which_recordings_cannot_be_right(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = list_audio(capsys)
    assert "2 files with a warning, see the column warning in m.csv; first: audio/loud.wav: its peak is" in err
    rows = {row.utterance: row for row in read_manifest(place / "m.csv")}
    assert rows["piped.wav"].warning == UNKNOWN
    assert rows["piped.wav"].seconds == rows["good.wav"].seconds == 1.2
    assert rows["good.wav"].warning is None
    assert LOUD in (rows["loud.wav"].warning or "")

    arguments = ("extract", "--manifest", "m.csv", "--encoder", "ge2e", "--out", "s.zarr")
    code, _, err = run(capsys, *arguments)
    assert code == 0, err
    assert "2 read with a warning, see s.warnings.csv; first: audio/loud.wav: its peak is" in err
    listed = (place / "s.warnings.csv").read_text()
    found = {row["utterance"]: row["warning"] for row in csv.DictReader(listed.splitlines())}
    assert found == {name: rows[name].warning for name in ("loud.wav", "piped.wav")}
    store = EmbeddingStore.open(place / "s.zarr")
    vectors = dict(zip(store.utterances, store.read()[:, 0, 0], strict=True))
    np.testing.assert_array_equal(vectors["piped.wav"], vectors["good.wav"])
    traces = {name: store.trace(row) for row, name in enumerate(store.utterances)}
    assert "warning" not in traces["good.wav"][0][0]
    assert traces["piped.wav"][0][0]["warning"] == UNKNOWN

    code, _, again = run(capsys, *arguments)  # from rows of the earlier store, without reading a file
    assert code == 0
    assert "2 read with a warning" in again
    assert (place / "s.warnings.csv").read_text() == listed

    (place / "q.yaml").write_text("quality: {max_duplicates: 1.0, max_upsampled: 1.0, max_clipped: 1.0}\n")
    code, out, err = run(capsys, "store", "check", "s.zarr", "--manifest", "m.csv", "--params", "q.yaml")
    assert code == 0, err
    assert "1, 25.0 %" in next(line for line in out.splitlines() if "far above full scale" in line)
    assert "1 recordings with a peak far above full scale, first: audio/loud.wav" in err


def test_a_loud_recording_is_scaled_only_if_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_audio(capsys)
    for name, setting in (("keep", "keep"), ("normalize", "normalize")):
        (place / "p.yaml").write_text(f"extract: {{loud_audio: {setting}, workers: 0}}\n")
        arguments = ("extract", "--manifest", "m.csv", "--encoder", "ge2e", "--params", "p.yaml")
        code, _, err = run(capsys, *arguments, "--out", f"{name}.zarr")
        assert code == 0, err
    kept, scaled = (EmbeddingStore.open(place / f"{name}.zarr") for name in ("keep", "normalize"))
    assert "loud_audio" not in kept.attributes
    assert scaled.attributes["loud_audio"] == "normalize"
    row = {name: kept.utterances.index(name) for name in kept.utterances}
    before, after = kept.read()[:, 0, 0], scaled.read()[:, 0, 0]
    for name in ("good.wav", "piped.wav", "peak.wav"):
        np.testing.assert_array_equal(after[row[name]], before[row[name]])
    np.testing.assert_allclose(after[row["loud.wav"]], after[row["peak.wav"]], atol=1e-5)
    assert np.abs(before[row["loud.wav"]] - before[row["peak.wav"]]).max() > 1e-3
    assert scaled.trace(row["loud.wav"])[0][0]["warning"].endswith("; scaled to a peak of 1")

    chosen = ("loud.wav", "--manifest", "m.csv", "--set", "clean", "--params", "p.yaml")
    code, out, err = run(capsys, "augment", "preview", *chosen, "--store", "normalize.zarr", "--out", "x.wav")
    assert code == 0, err
    assert "recording: its peak is" in out
    assert np.abs(soundfile.read(place / "x.wav")[0]).max() == pytest.approx(1.0)
    code, _, err = run(capsys, "augment", "preview", *chosen, "--store", "keep.zarr", "--out", "x.wav")
    assert code == 1
    assert "the trace of loud.wav is" in err


def test_a_resumed_run_still_says_what_the_killed_one_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_audio(capsys)
    (place / "p.yaml").write_text("extract: {shard: 1, workers: 0}\n")
    arguments = ("extract", "--manifest", "m.csv", "--encoder", "ge2e", "--params", "p.yaml", "--out")
    assert run(capsys, *arguments, "once/s.zarr")[0] == 0
    peak = (place / "audio/peak.wav").read_bytes()
    (place / "audio/peak.wav").unlink()
    code, _, err = run(capsys, *arguments, "s.zarr", "--max-failures", 0)
    assert code == 1
    assert "1 of 4 utterances failed" in err
    (place / "audio/peak.wav").write_bytes(peak)
    code, out, err = run(capsys, *arguments, "s.zarr")
    assert code == 0, err
    assert "3 of them resumed" in out
    assert "2 read with a warning" in err
    assert tree_bytes(place / "s.zarr") == tree_bytes(place / "once/s.zarr")
    assert (place / "s.warnings.csv").read_bytes() == (place / "once/s.warnings.csv").read_bytes()


def test_noise_with_the_header_of_a_stream_is_read_like_speech(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "m.csv").write_text("utterance,path\npeak,audio/peak.wav\n")
    for name in ("good", "piped"):
        (place / "a.csv").write_text(f"kind,path\nnoise,audio/{name}.wav\n")
        arguments = ("extract", "--manifest", "m.csv", "--augment", "a.csv", "--set", "noise5", "--encoder", "ge2e")
        code, _, err = run(capsys, *arguments, "--out", f"{name}.zarr")
        assert code == 0, err
    good, piped = (EmbeddingStore.open(place / f"{name}.zarr").read() for name in ("good", "piped"))
    np.testing.assert_array_equal(good, piped)
