import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Params
from pipeline.errors import ConfigError
from pipeline.journal import write_store
from pipeline.manifest import Utterance, read_manifest, write_manifest
from pipeline.report.sweeps import markdown
from pipeline.store import OK, EmbeddingStore
from pipeline.sweep import changed, read_grid
from tests.stages.test_cli import run

GRID = """
seeds: [0, 1]
grid: {train.objective: [dae, bridge]}
runs:
  - {train.objective: seed, enhance.steps: 3}
  - {train.objective: dae}
"""
PARAMS = """
conditions: [clean, noise0]
sets: [train, clean, noise0]
train: {max_epochs: 2, batch_size: 16, validation: 0.4}
score: {bootstrap: 5}
"""
COMMAND = ["sweep", "g.yaml", "--store", "train.zarr", "--store-manifest", "train.csv", "--conditions", "raw"]
COMMAND += ["--manifest", "clean.csv", "--params", "p.yaml", "--out", "out"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    made_of = {"encoder": "toy", "weights_sha256": "ab", "dim": 8}
    for name, speakers, views in (("train", "abcdef", 3), ("raw/clean", "ghij", 1), ("raw/noise0", "ghij", 1)):
        ids = [f"{speaker}/{number}" for speaker in speakers for number in range(4)]
        values = np.repeat(rng.standard_normal((len(speakers), 1, 1, 8)), 4, axis=0)
        values = values + 0.5 * rng.standard_normal((len(ids), 2 if views > 1 else 1, views, 8))
        write_store(tmp_path / f"{name}.zarr", ids, values.astype(np.float32), np.full(len(ids), OK, np.uint8), made_of)
        write_manifest(tmp_path / f"{Path(name).name}.csv", [Utterance(each, f"{each}.wav", each[0]) for each in ids])
    (tmp_path / "g.yaml").write_text(GRID)
    (tmp_path / "p.yaml").write_text(PARAMS)
    return tmp_path


def test_a_grid_is_run_once_and_goes_on(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, err = run(capsys, *COMMAND)
    assert code == 0, err
    rows = list(csv.DictReader((place / "out/sweep.csv").open()))
    assert [(row["train.objective"], row["enhance.steps"], row["seed"]) for row in rows] == [
        ("dae", "", "0"),
        ("dae", "", "1"),
        ("bridge", "", "0"),
        ("bridge", "", "1"),
        ("seed", "3", "0"),
        ("seed", "3", "1"),
    ]
    for row in rows:
        assert 0 <= float(row["noise0 eer_low"]) <= float(row["noise0 eer_high"]) <= 100  # of five resamples
        assert row["mean noisy eer"] == row["noise0 eer"]
        assert row["held_out_noisy_eer"]
        assert float(row["train_seconds"]) > 0
    assert len({row["validation_loss"] for row in rows}) >= 4  # an untrained network may be the best of two
    assert "| `train.objective=seed`, `enhance.steps=3` | 2 |" in out
    assert out.startswith((place / "out/sweep.md").read_text())

    kept = sorted((place / "out/runs").iterdir())
    assert len(kept) == 6
    kept[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in kept[1:]}
    assert run(capsys, *COMMAND)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in kept[1:]} == before
    again = list(csv.DictReader((place / "out/sweep.csv").open()))
    timed = ("train_seconds", "enhance_us")
    assert [{k: v for k, v in row.items() if k not in timed} for row in again] == [
        {k: v for k, v in row.items() if k not in timed} for row in rows
    ]


def other_vectors(path: Path, changed_by: float) -> None:
    """Change one number of a store, under the same attributes."""
    store = EmbeddingStore.open(path)
    values = store.read()
    values[-1, 0, -1, 0] += changed_by
    made_of = {name: value for name, value in store.attributes.items() if name != "schema"}
    write_store(path, store.utterances, values, store.status, made_of)


def other_speakers(path: Path) -> None:
    """Swap the speakers of two utterances of different ones."""
    first, *middle, last = read_manifest(path)
    write_manifest(path, [replace(first, speaker=last.speaker), *middle, replace(last, speaker=first.speaker)])


def test_runs_of_other_data_are_not_taken_for_these(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "g.yaml").write_text("{seeds: [0], runs: [{train.max_epochs: 1}, {data.draws: 1}]}")
    changes = {
        "as it was": lambda: None,
        "training vectors": lambda: other_vectors(Path("train.zarr"), 0.5),
        "test vectors": lambda: other_vectors(Path("raw/noise0.zarr"), 0.5),
        "speakers held out": lambda: other_speakers(Path("train.csv")),
        "speakers tested": lambda: other_speakers(Path("clean.csv")),
    }
    found = set[str]()
    for what, change in changes.items():
        change()
        code, _, err = run(capsys, *COMMAND)
        assert code == 0, err
        kept = {path.name for path in (place / "out/runs").iterdir()}
        assert len(kept - found) == 2, what
        found = kept


def test_grids_that_cannot_be_run_are_one_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    for text, says in (
        ("seeds: [0]\n", "neither a grid nor runs"),
        ("grid: {train.speed: [1]}\n", "train.speed: no such parameter"),
        ("grid: {train.objective: [gan]}\n", "train.objective=gan, seed=0: train.objective: Input should be"),
        ("grids: {}\n", "unknown key"),
    ):
        (place / "g.yaml").write_text(text)
        code, out, err = run(capsys, *COMMAND)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert says in err
    assert not list(place.glob("out/runs/*"))


def test_changes_go_by_dotted_names() -> None:
    found = changed(Params(), {"train.network.blocks": 2, "enhance.timestep": 7})
    assert (found.train.network.blocks, found.enhance.timestep) == (2, 7)
    with pytest.raises(ConfigError, match=r"enhance\.timestep\.x: no such parameter"):
        changed(Params(), {"enhance.timestep.x": 1})


def test_combinations_come_once(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("grid: {a: [1, 2], b: [3]}\nruns: [{b: 3, a: 1}, {c: 1}]\n")
    assert read_grid(tmp_path / "g.yaml") == ([{"a": 1, "b": 3}, {"a": 2, "b": 3}, {"c": 1}], [0, 1, 2])


def test_seeds_are_taken_together() -> None:
    rows = [
        {
            "parameters": {"a": 1},
            "validation_loss": loss,
            "train_seconds": 1.0,
            "test": {"clean": {"eer": 1.0}, "mean noisy": {"eer": loss}},
        }
        for loss in (2.0, 4.0)
    ]
    text = markdown(json.loads(json.dumps(rows)))
    assert "| `a=1` | 2 | 3.00 ± 1.00 |  |  | 1.00 ± 0.00 | 3.00 ± 1.00 | 1.00 ± 0.00 |" in text
