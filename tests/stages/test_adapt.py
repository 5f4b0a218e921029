from pathlib import Path

import pytest

from pipeline.model.model_file import load_model
from pipeline.model.packaged import SHA256
from tests.conftest import WriteVoice
from tests.stages.test_cli import run
from tests.stages.test_try import write_recordings


def test_a_folder_of_recordings_makes_a_model_and_its_gain_is_printed(
    tmp_path: Path, write_voice: WriteVoice, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyroomacoustics")
    write_recordings(tmp_path / "mine", write_voice, 22)
    write_recordings(tmp_path / "noise", write_voice, 2)
    (tmp_path / "mine/prose.wav").write_text("prose")
    write_voice(tmp_path / "mine/short.wav", 100, 1.0)
    out, options = tmp_path / "adapted.safetensors", ["--encoder", "ge2e", "--noise", str(tmp_path / "noise")]
    code, said, err = run(capsys, "adapt", str(tmp_path / "mine"), *options, "--out", str(out))
    assert code == 0
    assert "22 recordings" in said
    assert f"{out}: adapted to 22 recordings, whose mean has a weight of" in said
    assert "prose.wav: left out: " in err
    assert "short.wav: left out: 1.00 s are too short" in err
    loaded = load_model(out)
    record = loaded.model.adaptation
    assert record is not None
    assert (record.recordings, record.base_sha256) == (22, SHA256["ge2e"])
    assert loaded.model.only_timestep == loaded.timestep
    assert "22 recordings, mean and whitening" in (tmp_path / "adapted.md").read_text()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 2, "give either a folder of recordings with --encoder, or --store"),
        (["mine", "--store", "mine"], 2, "give either a folder of recordings with --encoder, or --store"),
        (["mine"], 2, "--encoder goes with a folder of recordings"),
        (["--store", "mine"], 2, "--store needs --model"),
        (["--store", "mine", "--model", "ge2e", "--rooms", "mine"], 2, "--noise and --rooms go with a folder"),
        (["mine", "--encoder", "ge2e", "--model", "campplus"], 1, "mine: encoder family is 'ge2e', but "),
        (["mine", "--encoder", "other"], 1, "there is no packaged model for encoder 'other'"),
        (["mine", "--encoder", "ge2e", "--noise", "empty"], 1, "empty: no audio files there"),
        (["mine", "--encoder", "ge2e"], 1, "at least 10 are needed"),
    ],
)
def test_what_does_not_suffice_is_one_line(
    tmp_path: Path,
    write_voice: WriteVoice,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    says: str,
) -> None:
    pytest.importorskip("pyroomacoustics")
    write_recordings(tmp_path / "mine", write_voice, 2)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, "adapt", *options, "--out", "a.safetensors")
    assert found == code
    assert says in err
    assert err.count("seed: error" if code == 1 else "Error") == 1
    assert not (tmp_path / "a.safetensors").exists()
