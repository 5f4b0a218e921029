import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.demo.espeak import LEVEL, SpeechJob, synthesise
from pipeline.data.demo.voices import BABBLE, SENTENCES, TEST, TRAIN
from pipeline.errors import CorpusError

pytest.importorskip("espeakng_loader")
ROOT = Path(__file__).resolve().parents[3]
# sandro and f3 have breath noise, announcer an echo: what the library would carry over to the next utterance.
VOICES = [voice for voice in TRAIN[:2] + TEST + BABBLE if voice.variant in ("fast", "announcer", "f3", "sandro")]


def jobs(folder: Path) -> list[SpeechJob]:
    folder.mkdir()
    return [SpeechJob(v.espeak, v.rate, v.pitch, v.range, SENTENCES[0], str(folder / f"{v.name}.flac")) for v in VOICES]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_depend_on_the_job_alone(tmp_path: Path) -> None:
    counts: list[int] = []
    synthesise(jobs(tmp_path / "a"), processes=2, progress=counts.append)
    synthesise(jobs(tmp_path / "b")[::-1], processes=1)
    synthesise(jobs(tmp_path / "c")[-1:])
    assert counts == [1, 2, 3, 4]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(set(contents(tmp_path / "a").values())) == len(VOICES) == 4
    assert contents(tmp_path / "c").items() <= contents(tmp_path / "a").items()
    for path in (tmp_path / "a").iterdir():
        speech, rate = soundfile.read(path)
        assert rate == 16000
        assert speech.ndim == 1
        assert 1.5 < len(speech) / rate < 6
        assert np.sqrt(np.mean(speech**2)) == pytest.approx(LEVEL, rel=0.05)
        assert np.abs(speech).max() < 0.99


def test_pitch_and_rate_are_obeyed(tmp_path: Path) -> None:
    plain = SpeechJob("en-us+m3", 160, 50, 50, SENTENCES[1], str(tmp_path / "plain.flac"))
    fast = replace(plain, rate=185, out=str(tmp_path / "fast.flac"))
    high = replace(plain, pitch=90, out=str(tmp_path / "high.flac"))
    synthesise([plain, fast, high])
    durations = {name: soundfile.info(tmp_path / f"{name}.flac").duration for name in ("plain", "fast", "high")}
    assert durations["fast"] < 0.95 * durations["plain"]
    assert durations["high"] == pytest.approx(durations["plain"], rel=0.05)
    assert _median_pitch(tmp_path / "high.flac") > 1.3 * _median_pitch(tmp_path / "plain.flac")


def _median_pitch(path: Path) -> float:
    """Hz, from the autocorrelation peak of 64 ms frames, for voices of 60 to 250 Hz."""
    speech, rate = soundfile.read(path)
    found = []
    for start in range(0, len(speech) - 1024, 512):
        spectrum = np.fft.rfft(speech[start : start + 1024] * np.hanning(1024), 2048)
        similarity = np.fft.irfft(np.abs(spectrum) ** 2)
        lag = rate // 250 + int(np.argmax(similarity[rate // 250 : rate // 60]))
        if similarity[lag] > 0.4 * similarity[0]:
            found.append(rate / lag)
    return float(np.median(found))


@pytest.mark.parametrize("voice", ["xx-nowhere", "en-us+nobody"])
def test_an_unknown_voice_is_one_clear_line(voice: str, tmp_path: Path) -> None:
    job = SpeechJob(voice, 160, 50, 50, "Good morning.", str(tmp_path / "x.flac"))
    with pytest.raises(CorpusError, match=f"no voice '{voice.replace('+', '.')}'") as caught:
        synthesise([job, replace(job, voice="en-us")])
    assert "\n" not in str(caught.value)


def test_the_worker_is_a_program(tmp_path: Path) -> None:
    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.data.demo.espeak"]
        return subprocess.run(command, input=line, capture_output=True, text=True, cwd=ROOT, check=False)

    job = SpeechJob("en-us+nobody", 160, 50, 50, "Good morning.", str(tmp_path / "x.flac"))
    for line, complaint in ((json.dumps(asdict(job)), "no voice"), ("not json", "not a JSON object")):
        done = run(line)
        assert done.returncode == 1
        assert complaint in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    job = SpeechJob("en-us", 160, 50, 50, "Good morning.", str(tmp_path / "no" / "x.flac"))
    with pytest.raises(CorpusError, match="cannot write"):
        synthesise([job])


def test_no_jobs_no_processes() -> None:
    synthesise([])
