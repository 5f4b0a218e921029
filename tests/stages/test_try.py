import tempfile
from pathlib import Path

import pytest

from tests.conftest import WriteVoice, tree_bytes
from tests.stages.test_cli import run


def write_recordings(folder: Path, write_voice: WriteVoice, count: int) -> None:
    for number in range(count):
        write_voice(folder / f"{number % 3}/{number:02}.wav", 90 + 7 * number, 2.4, number)


def test_a_verdict_on_recordings_leaves_nothing_behind(
    tmp_path: Path, write_voice: WriteVoice, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyroomacoustics")
    write_recordings(tmp_path / "mine", write_voice, 21)
    (tmp_path / "mine/prose.wav").write_text("prose")
    (tmp_path / "mine/notes.txt").write_text("notes")
    before = tree_bytes(tmp_path / "mine")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    code, out, err = run(capsys, "try", str(tmp_path / "mine"), "--encoder", "ge2e")
    assert code == 0
    assert "21 recordings" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == ["raw", "as", "adapted"]
    assert out.count("Why: ") == 1
    assert any(out.count(verdict) for verdict in ("Use the model as it is", "Adapt the model", "Leave it off"))
    assert "prose.wav: left out: " in err
    assert tree_bytes(tmp_path / "mine") == before
    assert not any((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("count", "options", "says"),
    [
        (0, [], "no audio files there"),
        (3, [], "3 readable recordings; at least 20 are needed"),
        (3, ["--encoder", "other"], "there is no packaged model for encoder 'other'"),
    ],
)
def test_what_does_not_suffice_is_one_line(
    tmp_path: Path,
    write_voice: WriteVoice,
    capsys: pytest.CaptureFixture[str],
    count: int,
    options: list[str],
    says: str,
) -> None:
    (tmp_path / "mine").mkdir()
    write_recordings(tmp_path / "mine", write_voice, count)
    code, _, err = run(capsys, "try", str(tmp_path / "mine"), *(options or ["--encoder", "ge2e"]))
    assert code == 1
    assert says in err
    assert err.count("\n") == 1
