import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline.audio.reading import read_audio
from pipeline.encoders.encoder import Encoder
from pipeline.store.embedding_store import EmbeddingStore
from tests.conftest import WriteVoice
from tests.stages.test_cli import run

PARAMS = """
conditions: [clean, reverb_noise5_phone]
sets: [train, clean, reverb_noise5_phone]
extract:
  draws: 2
  frames: 60
  eval_crops: 2
  eval_frames: 50
  workers: 0
  views:
    noise:
      - one_of:
          - {kind: babble, probability: 0.5, snr: [13.0, 20.0], talkers: [2, 2]}
          - {kind: noise, probability: 0.5, snr: [0.0, 15.0]}
    far_call:
      - {kind: reverb}
      - {kind: clip, percent: [1.0, 10.0], probability: 0.5}
      - {kind: opus, kbit: [12, 24]}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_voice: WriteVoice) -> Path:
    """A working folder with three speakers, a noise, a room, lists and parameters."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_voice(tmp_path / f"audio/u{number}.wav", 100 + 40 * number, 1.2, number)
    write_voice(tmp_path / "audio/noise.wav", 300, 0.4, 9)
    write_voice(tmp_path / "audio/room.wav", 300, 0.02, 9)
    talkers = "".join(f"babble,u{n}.wav,s{n}\n" for n in range(3))
    (tmp_path / "a.csv").write_text(f"kind,path,speaker\nnoise,noise.wav,\nrooms,room.wav,\n{talkers}")
    (tmp_path / "m.csv").write_text("utterance,path,speaker\n" + "".join(f"u{n},u{n}.wav,s{n}\n" for n in range(3)))
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


LISTS = ("--manifest", "m.csv", "--augment", "a.csv", "--root", "audio")


def test_what_is_heard_is_what_was_encoded(place: Path, ge2e: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    for name, views in (("train", ("clean", "noise", "far_call")), ("reverb_noise5_phone", (None,))):
        code, _, err = run(capsys, "extract", *LISTS, "--set", name, "--encoder", "ge2e", "--out", f"{name}.zarr")
        assert code == 0, err
        values = EmbeddingStore.open(Path(f"{name}.zarr")).read()
        for column, view in enumerate(views):
            chosen = ("--view", view) if view else ()
            options = (*LISTS, "--set", name, *chosen, "--draw", 1, "--store", f"{name}.zarr", "--out", "x.wav")
            code, out, err = run(capsys, "augment", "preview", "u1", *options)
            assert code == 0, err
            assert f"same trace as in {name}.zarr" in out
            with torch.inference_mode():
                (expected,) = ge2e([torch.from_numpy(read_audio(place / "x.wav"))]).numpy()
            np.testing.assert_allclose(expected, values[1, 1, column], atol=1e-5)
    assert "reverb\n  room.wav\nnoise, 5 dB SNR\n  noise.wav from sample 0\nphone\n" in out


def test_sixteen_bits_are_the_same_but_for_rounding(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("float", "pcm16"):
        options = ("--view", "noise", "--sample-format", kind, "--out", f"{kind}.wav")
        assert run(capsys, "augment", "preview", "u0", *LISTS, *options)[0] == 0
    assert soundfile.info("float.wav").subtype == "FLOAT"
    assert soundfile.info("pcm16.wav").subtype == "PCM_16"
    np.testing.assert_allclose(read_audio(place / "pcm16.wav"), read_audio(place / "float.wav"), atol=2**-15)


@pytest.mark.parametrize(
    ("utterance", "options", "says"),
    [
        ("u9", ("--view", "noise"), "u9: is not in the manifest"),
        ("u0", (), "a view is needed: it is one of clean, noise, far_call"),
        ("u0", ("--view", "hum"), "unknown view 'hum': it is one of clean, noise, far_call"),
        ("u0", ("--set", "hum5"), "unknown condition 'hum5'"),
        ("u0", ("--set", "clean", "--draw", "2"), "draw 2: the condition has 2"),
        ("u0", ("--set", "music5"), "no music files, which the recipe music5 needs"),
        ("u0", ("--view", "noise", "--seed", "1", "--store", "s.zarr"), "the trace of u0 is "),
        ("u0", ("--view", "noise", "--draw", "5", "--store", "s.zarr"), "has no draw 5"),
        ("u2", ("--view", "noise"), "has changed since the manifest was made"),
    ],
)
def test_what_cannot_be_heard_is_one_clear_line(
    place: Path, ge2e: Encoder, capsys: pytest.CaptureFixture[str], utterance: str, options: tuple[str, ...], says: str
) -> None:
    if "--store" in options:
        code, _, err = run(capsys, "extract", *LISTS, "--set", "train", "--encoder", "ge2e", "--out", "s.zarr")
        assert code == 0, err
    if utterance == "u2":
        Path("m.csv").write_text(f"utterance,path,sha256\nu2,u2.wav,{64 * '0'}\n")
        shutil.copy("audio/u0.wav", "audio/u2.wav")
    code, _, err = run(capsys, "augment", "preview", utterance, *LISTS, *options, "--out", "x.wav")
    assert code == 1
    assert says in err
    assert err.count("\n") == 1
    assert not Path("x.wav").exists()
