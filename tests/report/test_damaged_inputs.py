"""`seed report` with bad files: one line, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TrialError
from pipeline.report.series import read_series
from tests.report.test_page import write_results
from tests.stages.test_cli import run

pytestmark = pytest.mark.endurance

COMMAND = ("report", "--results", "scores", "--models", "models", "--quality", "q", "--out", "out", "--encoder", "toy")
NAMES = {
    "scores/toy/det.csv": ("condition", "system"),
    "scores/toy/histogram.csv": ("condition", "system"),
    "scores/toy/distances.csv": ("condition", "system", "pair", "measure"),
    "scores/toy/map.csv": ("system", "condition", "utterance", "speaker"),
    "models/toy/curve.csv": (),
}
"""The columns of text of each file; all others are numbers."""
UNUSED = ("threshold", "hit", "probit_false_alarm", "probit_miss", "gradient_norm", "learning_rate")


def drop(lines: list[list[str]], column: int) -> None:
    for line in lines:
        del line[column]


def blank(lines: list[list[str]], column: int) -> None:
    lines[-1][column] = ""


def garble(lines: list[list[str]], column: int) -> None:
    lines[-1][column] = "nan"


def shorten(lines: list[list[str]], column: int) -> None:
    del lines[-1][max(column, 1) :]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_results(tmp_path, ("raw", "seed"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(capsys: pytest.CaptureFixture[str], file: str, place: Path) -> None:
    """Run the report, which must say in one line that a file is wrong, and write nothing."""
    code, _, err = run(capsys, *COMMAND)
    assert code == 1
    assert err.startswith(f"seed: error: {file}: ")
    assert err.count("\n") == 1
    assert not (place / "out").exists()


@pytest.mark.parametrize("damage", [drop, blank, garble, shorten])
@pytest.mark.parametrize("file", NAMES)
def test_a_table_without_a_column_or_a_number_is_refused(
    place: Path, file: str, damage: Callable[[list[list[str]], int], None]
) -> None:
    whole = [line.split(",") for line in (place / file).read_text().splitlines()]
    text = damage in (blank, garble)  # any text is a name
    for column, name in enumerate(whole[0]):
        if name in UNUSED or (text and name in NAMES[file]) or (damage is blank and name == "train_loss"):
            continue
        lines = [list(line) for line in whole]
        damage(lines, column)
        (place / file).write_text("\n".join(map(",".join, lines)) + "\n")
        with pytest.raises(TrialError, match=f"{file}: ") as said:
            read_series(place / "scores", place / "models", "toy")
        assert "\n" not in str(said.value), name


def test_such_a_table_leaves_no_half_of_a_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = "scores/toy/map.csv"
    lines = [line.split(",") for line in (place / file).read_text().splitlines()]
    drop(lines, lines[0].index("x"))
    (place / file).write_text("\n".join(map(",".join, lines)) + "\n")
    check(capsys, file, place)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("eer", value) for value in ("5", None, [5], {})),
        *(("eer_ci", value) for value in ("5", [1], [1, "b"], 3.0)),
        *(("p_value", value) for value in ("low", [])),
        *(("targets", value) for value in ("9", 1.5, None)),
        ("min_dcf_0.01", "cheap"),
    ],
)
def test_figures_of_other_types_are_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    file = "scores/toy/metrics.json"
    content = json.loads((place / file).read_text())
    content["results"]["noise0"]["seed"][key] = value
    (place / file).write_text(json.dumps(content))
    check(capsys, file, place)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"protocol": {}, "results": {"clean": NaN}}', "9" * 5000])
def test_files_that_are_no_metrics_are_one_line(place: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    file = "scores/toy/metrics.json"
    (place / file).write_text(text)
    check(capsys, file, place)


def test_a_map_whose_clean_points_are_gone_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = "scores/toy/map.csv"
    lines = (place / file).read_text().splitlines()
    (place / file).write_text("\n".join(line for line in lines if ",clean," not in line) + "\n")
    check(capsys, file, place)
