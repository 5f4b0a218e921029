"""The commands: help, usage, and one clear line for whatever a user can get wrong."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest
import soundfile

from pipeline.audio.denoise import Denoise
from pipeline.config.score import ComparisonName, ScoreFormat
from pipeline.config.train import NetworkSettings, Train
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.loggers import LOGGERS
from stages.cli import COMMANDS, main, seed
from stages.helpers.stdin import OnBad, StreamFormat
from tests.conftest import WriteVoice, voice

PROJECT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_voice: WriteVoice) -> Path:
    """A working folder without parameters, with two voices and a manifest."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_voice(tmp_path / "audio" / name / "1.wav", seconds=0.5)
    (tmp_path / "m.csv").write_text("utterance,path\na,audio/a/1.wav\nb,audio/b/1.wav\n")
    return tmp_path


def test_help_lists_every_stage_without_importing_any() -> None:
    code = (
        "import sys; from stages.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'zarr', 'pydantic', 'dask', 'scipy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_stage_explains_its_options(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert (
        "--params" in out or "Commands:" in out or command in ("adapt", "clean", "import", "export")
    )  # with nothing to set
    assert "Usage: seed " + command in out


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("score", "comparison", get_args(ComparisonName)),
        ("score", "format", get_args(ScoreFormat)),
        ("extract", "denoise", get_args(Denoise)),
        ("train", "log", tuple(LOGGERS)),
        ("convert", "predict", get_args(NetworkSettings.model_fields["predict"].annotation)),
        ("convert", "scale", get_args(Train.model_fields["scale"].annotation)),
        ("enhance", "stream_format", get_args(StreamFormat)),
        ("enhance", "on_bad", get_args(OnBad)),
    ],
)
def test_choices_are_those_of_the_library(command: str, option: str, choices: tuple[str, ...]) -> None:
    """Options list them by hand, because importing the library would slow down `--help`."""
    found = seed.get_command(click.Context(seed), command)
    assert found is not None
    (kind,) = (parameter.type for parameter in found.params if parameter.name == option)
    assert isinstance(kind, click.Choice)
    assert set(kind.choices) == set(choices)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["extract"],
        ["extract", "--manifest", "none.csv", "--encoder", "ge2e", "--out", "s.zarr"],
        ["extract", "--manifest", "m.csv", "--encoder", "ge2e", "--out", "s.zarr", "--draws", "0"],
        ["manifest", "--out", "x"],
        ["manifest", "--corpus", "demo", "--pattern", "*", "--out", "x"],
        ["manifest", "--corpus", "demo", "--join", ".", "--out", "x"],
        ["score", "--out", "x"],
        ["score", "--system", "raw", "--manifest", "m.csv", "--out", "x"],
        ["score", "--enrol", "a", "--test", "a", "--trials", "t", "--lists", ".", "--out", "x"],
        ["score", "--system", "raw=r", "--manifest", "m.csv", "--enrolment", "m.csv", "--out", "x"],
        ["trials", "vcmix", "--bogus"],
        ["corpus", "check"],
    ],
)
def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str], place: Path, arguments: list[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "Error: " in err
    assert "Traceback" not in err


def test_the_folder_of_one_corpus_is_not_for_several(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "p.yaml").write_text("corpus: [demo, arabic]\n")
    code, _, err = run(capsys, "fetch", "--out", "x", "--params", "p.yaml")
    assert code == 2
    assert "--out is the folder of one corpus; give --corpus too" in err


def bad_calls(place: Path) -> dict[str, tuple[list[str], str]]:
    """What a user may get wrong: arguments, and what the one line must say."""
    (place / "twice.csv").write_text("utterance,path,path\na,b,c\n")
    (place / "odd.csv").write_text("utterance,path,colour\na,b,c\n")
    (place / "p.yaml").write_text("extract: {drows: 3}\n")
    (place / "w.pt").write_bytes(b"weights of somebody else")
    (place / "m.safetensors").write_bytes(b"no model")
    values, status = np.ones((2, 1, 1, 4), np.float32), np.full(2, OK, np.uint8)
    write_store(place / "s.zarr", ["a", "b"], values, status, {"encoder": "toy", "weights_sha256": "0", "dim": 4})
    (place / "empty.zarr").mkdir()
    (place / "d.safetensors").mkdir()
    os.mkfifo(place / "pipe")
    (place / "null.yaml").write_text("score: null\n")
    (place / "trials.txt").write_text("1 a b\n0 a nobody\n")
    (place / "c.yaml").write_text("x: {title: t, licence: l, train: {speech: '*'}, test: {speech: '*'}}\n")
    extract = ["extract", "--encoder", "ge2e", "--out", "new.zarr"]
    store = ["--enrol", "s.zarr", "--test", "s.zarr", "--out", "r"]
    return {
        "duplicate column": ([*extract, "--manifest", "twice.csv"], "twice.csv:1: duplicate column 'path'"),
        "unknown column": ([*extract, "--manifest", "odd.csv"], "odd.csv:1: unknown column 'colour'"),
        "unknown parameter": (
            [*extract, "--manifest", "m.csv", "--params", "p.yaml"],
            "p.yaml: extract.drows: unknown key",
        ),
        "unknown encoder": (
            ["extract", "--encoder", "x", "--out", "n.zarr", "--manifest", "m.csv"],
            "encoder x: unknown family 'x'; there are",
        ),
        "unknown condition": ([*extract, "--manifest", "m.csv", "--set", "hum"], "unknown condition 'hum'"),
        "no sources": ([*extract, "--manifest", "m.csv", "--set", "noise5"], "no noise files"),
        "wrong weights": ([*extract, "--manifest", "m.csv", "--weights", "w.pt"], "cannot read weights w.pt"),
        "device": ([*extract, "--manifest", "m.csv", "--device", "cuda:99"], "is not available"),
        "corpus root": (
            ["fetch", "--corpora", "c.yaml", "--corpus", "x", "--data-root", "nowhere"],
            "no folder nowhere/speech",
        ),
        "unknown corpus": (["fetch", "--corpora", "c.yaml", "--corpus", "y"], "no corpus 'y'; there are x"),
        "no store": (["train", "--store", "empty.zarr", "--out", "m.safetensors"], "no embedding store there"),
        "nothing to train on": (["train", "--store", "s.zarr", "--out", "new.safetensors"], "a clean and a noisy view"),
        "no model": (["enhance", "--store", "s.zarr", "--model", "m.safetensors", "--out", "e.zarr"], "not a readable"),
        "unknown utterance": (["score", *store, "--trials", "trials.txt"], "first: nobody (trials.txt:2)"),
        "output is a folder": (["train", "--store", "s.zarr", "--out", "d.safetensors"], "is a folder"),
        "output is a device": (["manifest", "--audio", ".", "--pattern", "*.csv", "--out", "pipe"], "no regular file"),
        "speaker pattern": (
            ["manifest", "--audio", ".", "--pattern", "*.csv", "--speaker", "(", "--out", "l.csv"],
            "speaker pattern '(': not a regular expression",
        ),
        "file pattern": (["manifest", "--audio", ".", "--pattern", "/etc/*", "--out", "l.csv"], "file pattern"),
        "section": (["score", *store, "--trials", "trials.txt", "--seed", "1", "--params", "null.yaml"], "null.yaml: "),
        "nothing to check": (["store", "check", "empty.zarr"], "no embedding store there"),
        "quality": (["store", "check", "s.zarr"], "near-duplicate rows 2, 100.0 %"),
        "no metrics": (["report", "--results", ".", "--encoder", "ge2e", "--corpora", "c.yaml"], "no metrics there"),
    }


@pytest.mark.parametrize(
    "what",
    [
        "duplicate column",
        "unknown column",
        "unknown parameter",
        "unknown encoder",
        "unknown condition",
        "no sources",
        "wrong weights",
        "device",
        "corpus root",
        "unknown corpus",
        "no store",
        "nothing to train on",
        "no model",
        "unknown utterance",
        "output is a folder",
        "output is a device",
        "speaker pattern",
        "file pattern",
        "section",
        "nothing to check",
        "quality",
        "no metrics",
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], place: Path, what: str
) -> None:
    arguments, says = bad_calls(place)[what]
    before = {path.name for path in place.iterdir()}
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert err.startswith("seed: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert {path.name for path in place.iterdir()} - before <= {"data"}  # nothing under its final name


def test_too_many_bad_files_fail_the_stage_and_fewer_do_not(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "audio/b/1.wav").write_text("not audio")
    arguments = ["extract", "--manifest", "m.csv", "--encoder", "ge2e", "--out", "s.zarr"]
    code, _, err = run(capsys, *arguments, "--max-failures", 0)
    assert code == 1
    assert "1 of 2 utterances failed, more than extract.max_failures = 0" in err
    code, out, err = run(capsys, *arguments, "--max-failures", 1)
    assert code == 0
    assert "2 utterances" in out
    assert "1 failed, see s.failures.csv" in err
    assert "b,audio/b/1.wav," in (place / "s.failures.csv").read_text()


def test_a_disk_that_takes_no_more_is_one_clear_line_and_the_work_goes_on_after(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    # A limit on the size of a file stands in for a full disk: the same failing write, without a disk to fill.
    shell = f"ulimit -f 1; exec {sys.executable} -m stages.cli extract --manifest m.csv --encoder ge2e --out s.zarr"
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    full = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert full.stderr.startswith("seed: error: ")
    assert "File too large" in full.stderr
    assert full.stderr.count("\n") == 1
    assert not (place / "s.zarr").exists()
    assert run(capsys, "extract", "--manifest", "m.csv", "--encoder", "ge2e", "--out", "s.zarr")[0] == 0
    assert (place / "s.zarr").exists()


def test_a_store_is_checked_with_its_recordings(
    capsys: pytest.CaptureFixture[str], place: Path, write_voice: WriteVoice
) -> None:
    for name in ("a", "b"):
        write_voice(place / "audio" / name / "1.wav", rate=8_000)
    assert run(capsys, "extract", "--manifest", "m.csv", "--encoder", "ge2e", "--out", "s.zarr")[0] == 0
    (place / "p.yaml").write_text("quality: {max_duplicates: 1, max_upsampled: 1}\n")
    arguments = ["store", "check", "s.zarr", "--manifest", "m.csv", "--out", "q"]
    code, out, err = run(capsys, *arguments, "--params", "p.yaml")
    assert (code, err) == (0, "")
    assert all(text in out for text in ("near-duplicates", "2, 100.0 %", "recordings read", "norm", "95 %"))
    figures = json.loads((place / "q/quality.json").read_text())
    assert (figures["rows"], figures["duplicates"], figures["recordings"]["upsampled"]) == (2, 2, 2)  # one voice twice
    assert (place / "q/quality.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run(capsys, *arguments, "--no-picture")
    assert code == 1
    assert "near-duplicates" in out
    assert err.startswith("seed: error: s.zarr: near-duplicate rows 2, 100.0 % (quality.max_duplicates: 5 %)")
    assert "upsampled recordings 2, 100.0 % (quality.max_upsampled: 10 %)" in err
    assert err.count("\n") == 1
    code, out, err = run(capsys, "store", "check", "s.zarr", "--params", "p.yaml")
    assert code == 0
    assert "recordings read" not in out


def test_encoders_are_listed_and_checked(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "params.yaml").write_text("encoder:\n  mine: {family: resnetse34v2, weights: models/mine.pt}\n")
    code, out, _ = run(capsys, "encoder", "list")
    assert code == 0
    assert all(text in out for text in ("mine", "models/mine.pt", "campplus", "wavlm_ecapa", "torchscript"))
    for name, pitch, draw in (("a", 110, 0), ("b", 113, 1), ("c", 240, 2)):
        soundfile.write(place / f"{name}.wav", voice(pitch, 2.5, draw), 16_000)
    code, out, _ = run(capsys, "encoder", "check", "ge2e", "--audio", "a.wav", "b.wav", "c.wav")
    assert code == 0
    assert all(text in out for text in ("1,423,616", "16000 Hz", "39373b86", "times real time", "cosine, same speaker"))
    code, out, err = run(capsys, "encoder", "check", "ge2e", "--audio", "a.wav", "c.wav", "b.wav")
    assert code == 1
    assert "cosine, different speakers" in out
    assert err.startswith("seed: error: encoder ge2e does not tell these speakers apart")
    code, _, err = run(capsys, "encoder", "check", "mine")
    assert (code, err) == (1, "seed: error: no weights at models/mine.pt; check the path\n")


def test_encoders_are_checked_with_synthetic_voices(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, _ = run(capsys, "encoder", "check", "campplus")
    assert code == 0
    assert "6,848,544" in out


def test_the_package_is_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stages", "--version"])
    runpy.run_module("stages", run_name="__main__")
    assert "seed, version" in capsys.readouterr().out
