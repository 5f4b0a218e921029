from pathlib import Path

import pytest

from pipeline.errors import TrialError, UnknownUtteranceError
from pipeline.listed import open_lists, score_lists
from tests.test_scoring import IDS, SPEAKERS, make

TEXT = "".join(f"{int(SPEAKERS[a] == SPEAKERS[b])} {a} {b}\n" for a in IDS for b in IDS if a != b)


@pytest.fixture
def systems(tmp_path: Path) -> dict[str, Path]:
    for system, spread in (("raw", 1.2), ("seed", 0.6)):
        make(tmp_path / system / "clean.zarr", 0.2, 1)
        make(tmp_path / system / "noise5.zarr", spread, 2, failed=5 if system == "raw" else None)
    (tmp_path / "lists").mkdir()
    return {name: tmp_path / name for name in ("raw", "seed")}


def test_lists_are_measured_on_the_same_trials_in_every_condition(tmp_path: Path, systems: dict[str, Path]) -> None:
    (tmp_path / "lists/all.txt").write_text(TEXT)
    (tmp_path / "lists/few").write_text(f"1 {IDS[0]} {IDS[1]}\n0 {IDS[0]} {IDS[4]}\n0 {IDS[0]} {IDS[5]}\n")
    lists = {name: found.trials for name, found in open_lists(tmp_path / "lists", systems, "clean").items()}
    assert {name: len(trials) for name, trials in lists.items()} == {"all": 24 * 23, "few": 3}
    speakers = {name: speaker for name, speaker in SPEAKERS.items() if name != IDS[23]}
    table, rocs, _ = score_lists(systems, lists, ["clean", "noise5"], "clean", speakers, 20, 0)
    assert list(table) == ["all", "few", "all/noise5", "few/noise5"]
    assert set(rocs) == {(row, system) for row in table for system in systems}
    assert {(row["raw"]["targets"], row["raw"]["nontargets"]) for name, row in table.items() if "all" in name} == {
        (5 * 4 * 3 + 3 * 2, 23 * 22 - 66)  # utterance 5 failed once, so it is in no trial
    }
    assert table["few"]["seed"]["nontargets"] == 1
    assert table["all/noise5"]["seed"]["eer"] < table["all/noise5"]["raw"]["eer"]
    assert "eer_ci" in table["few"]["raw"]
    assert "eer_ci" not in table["all"]["raw"]  # one speaker is unknown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{IDS[0]} {IDS[1]}\n", "lists/t: the list has no labels"),
        (f"1 {IDS[0]} {IDS[1]}\n0 {IDS[0]} nobody\n", r"first: nobody \(.*lists/t:2\)"),
    ],
)
def test_lists_that_cannot_be_measured_are_errors(
    tmp_path: Path, systems: dict[str, Path], text: str, says: str
) -> None:
    assert open_lists(tmp_path / "lists", systems, "clean") == {}
    (tmp_path / "lists/t").write_text(text)
    with pytest.raises((TrialError, UnknownUtteranceError), match=says):
        open_lists(tmp_path / "lists", systems, "clean")


def test_a_list_whose_targets_all_failed_is_an_error(tmp_path: Path, systems: dict[str, Path]) -> None:
    (tmp_path / "lists/t").write_text(f"1 {IDS[5]} {IDS[4]}\n0 {IDS[0]} {IDS[4]}\n")
    lists = {name: found.trials for name, found in open_lists(tmp_path / "lists", systems, "clean").items()}
    with pytest.raises(TrialError, match="trial list t: no targets or no non-targets are left"):
        score_lists(systems, lists, ["clean", "noise5"], "clean", SPEAKERS, 0, 0)
    table, *_ = score_lists({"seed": systems["seed"]}, lists, ["clean"], "clean", {}, 0, 0)
    assert (table["t"]["seed"]["targets"], table["t"]["seed"]["nontargets"]) == (1, 1)
