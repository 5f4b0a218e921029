"""Lists and scores that come through pipes are read once, and recorded by what was read."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.utils.inputs import hash_input, take_input
from tests.stages.test_cli import run

Pipe = Callable[[str], str]
LIST = "a/0.wav a/1.wav target\na/0.wav b/1.wav nontarget\nb/0.wav b/1.wav target\nb/0.wav a/1.wav nontarget\n"
SCORES = "a/0.wav a/1.wav 0.9\na/0.wav b/1.wav 0.1\nb/0.wav b/1.wav 0.8\nb/0.wav a/1.wav 0.2\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ids = [f"{speaker}/{number}.wav" for speaker in "ab" for number in range(2)]
    values = np.random.default_rng(0).standard_normal((4, 1, 1, 8)).astype(np.float32)
    write_store(tmp_path / "s.zarr", ids, values, np.full(4, OK, np.uint8), {"encoder": "toy", "dim": 8})
    return tmp_path


@pytest.fixture(params=["fifo", "descriptor"])
def pipe(request: pytest.FixtureRequest, tmp_path: Path) -> Pipe:
    """A function that returns the path of a pipe, into which a thread writes a text: what `<(…)` of a shell is."""

    def make(text: str) -> str:
        if request.param == "fifo":
            name = tmp_path / f"pipe{len(list(tmp_path.glob('pipe*')))}"
            os.mkfifo(name)
            threading.Thread(target=name.write_text, args=(text,), daemon=True).start()
            return str(name)
        read, write = os.pipe()
        os.write(write, text.encode())  # less than a pipe holds
        os.close(write)
        return f"/dev/fd/{read}"

    return make


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_trial_list_and_models_come_through_pipes(
    capsys: pytest.CaptureFixture[str], place: Path, pipe: Pipe
) -> None:
    models = "a/0.wav a/0.wav\nb/0.wav b/0.wav a/0.wav\n"
    stores = ["score", "--enrol", "s.zarr", "--test", "s.zarr", "--out", "r", "--bootstrap", "0"]
    code, out, err = run(capsys, *stores, "--trials", pipe(LIST), "--enrolment", pipe(models))
    assert (code, err) == (0, "")
    assert "4 trials" in out
    protocol = json.loads((place / "r/metrics.json").read_text())["protocol"]
    assert protocol["trials"]["sha256"] == sha256(LIST)
    assert protocol["enrolment"]["sha256"] == sha256(models)


def test_scores_and_their_list_come_through_pipes(capsys: pytest.CaptureFixture[str], place: Path, pipe: Pipe) -> None:
    speakers = "".join(f"{speaker}/{n}.wav {speaker}\n" for speaker in "ab" for n in range(2))
    arguments = ["--trials", pipe(LIST), "--speakers", pipe(speakers), "--bootstrap", "9", "--out", "o"]
    code, out, err = run(capsys, "metrics", pipe(SCORES), *arguments)
    assert (code, err) == (0, "")
    assert "EER 0.00 %" in out
    protocol = json.loads((place / "o/metrics.json").read_text())["protocol"]
    assert protocol["scores"]["scores"]["sha256"] == sha256(SCORES)
    assert protocol["trials"]["sha256"] == sha256(LIST)
    assert protocol["speakers"]["sha256"] == sha256(speakers)


def test_parameters_and_manifest_come_through_pipes(
    capsys: pytest.CaptureFixture[str], place: Path, pipe: Pipe
) -> None:
    code, _, err = run(
        capsys, *("extract", "--manifest", pipe("utterance,path\na,a.wav\n"), "--params", pipe("seed: 3\n")),
        *("--encoder", "ge2e", "--weights", "none.pt", "--out", "x.zarr"),
    )  # fmt: skip
    assert code == 1
    assert "none.pt" in err  # both lists have been read by then


def test_a_pipe_is_a_file_of_its_name_and_is_removed_in_the_end(tmp_path: Path, pipe: Pipe) -> None:
    path = Path(pipe("text"))
    taken = take_input(path)
    assert (taken.name, taken.read_text(), taken.read_text()) == (path.name, "text", "text")
    assert hash_input(taken) == sha256("text")


def test_what_has_changed_since_it_was_taken_has_no_checksum(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    file.write_text("one")
    assert take_input(file) == file
    assert hash_input(file) == sha256("one")
    file.write_text("other")
    assert hash_input(file) is None
    assert hash_input(take_input(file)) == sha256("other")


@pytest.mark.parametrize(("path", "what"), [("/dev/null", "device"), ("/dev/zero", "device"), ("/", "folder")])
def test_devices_and_folders_are_refused(path: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"{path}: is a {what}"):
        take_input(Path(path))
