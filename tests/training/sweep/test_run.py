import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.params import Params, read_params
from pipeline.data.manifest import Utterance, read_manifest, write_manifest
from pipeline.errors import ConfigError, TrainingError
from pipeline.model import enhance_store as enhance
from pipeline.model.seed_model import SeedModel
from pipeline.report.sweep_tables import render_sweep
from pipeline.store import writer as journal
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.sweep import run as sweep
from pipeline.training.sweep.data import SweepData
from pipeline.training.sweep.grid import apply_changes, read_grid
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
train: {max_epochs: 2, batch_size: 16, validation: 0.4, threads: 1}
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


def test_a_grid_is_run_once_and_resumed(capsys: pytest.CaptureFixture[str], place: Path) -> None:
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
        assert float(row["enhance_us"]) > 0
        assert (row["failed"], row["held_out_speakers"]) == ("", "2")
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


@pytest.mark.parametrize("content", ['{"a":', "{}", "[]", ""])
def test_a_damaged_row_is_run_again(capsys: pytest.CaptureFixture[str], place: Path, content: str) -> None:
    (place / "g.yaml").write_text("seeds: [0]\nruns: [{}]\n")
    assert run(capsys, *COMMAND)[0] == 0
    (kept,) = (place / "out/runs").iterdir()
    kept.write_text(content)
    assert run(capsys, *COMMAND)[0] == 0
    assert json.loads(kept.read_text())["test"]["mean noisy"]


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


def data_of_sweep() -> SweepData:
    speakers = {row.utterance: row.speaker for row in read_manifest(Path("train.csv"))}
    store, manifest = EmbeddingStore.open(Path("train.zarr")), Path("clean.csv")
    return SweepData(store, speakers, Path("raw"), read_manifest(manifest), manifest)


def test_rows_of_other_data_are_not_reused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "run_one", lambda *arguments: {})
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
        for _ in range(2):
            sweep.run_sweep([{}, {"data.draws": 1}], [0], Params(), data_of_sweep(), place / "runs")
        kept = {path.name for path in (place / "runs").iterdir()}
        assert len(kept - found) == 2, what
        found = kept


def test_a_failed_run_is_reported_and_the_others_continue(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "g.yaml").write_text(
        "seeds: [0, 1]\n"
        "grid: {train.learning_rate: [1.0e+25, 1.0e-3], train.warmup: [0]}\n"
        "runs: [{train.objective: dae}]\n"
    )
    code, out, err = run(capsys, *COMMAND)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader((place / "out/sweep.csv").open()))
    assert [bool(row["failed"]) for row in rows] == [True, True, False, False, False, False]
    for row in rows:
        figures = [row[name] for name in ("validation_loss", "held_out_noisy_eer", "noise0 eer", "clean min_dcf_0.01")]
        assert all(figures) or row["failed"]
        assert not any(figures) or not row["failed"]
    assert "Lower train.learning_rate" in rows[0]["failed"]
    assert "| `train.learning_rate=1e+25`, `train.warmup=0` | 0 of 2 | failed |" in out
    assert f"- `train.learning_rate=1e+25`, `train.warmup=0`, seed 1: {rows[1]['failed']}" in out
    assert out.endswith("6 runs, 2 of them failed\n")
    assert len(list((place / "out/runs").iterdir())) == 4

    (place / "g.yaml").write_text("seeds: [0]\nruns: [{train.learning_rate: 1.0e+25, train.warmup: 0}]\n")
    code, out, err = run(capsys, *COMMAND)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "out/sweep.csv: 1 of 1 runs failed; the first: in epoch 1 the loss is" in err
    assert len(list(csv.DictReader((place / "out/sweep.csv").open()))) == 1


def test_a_failed_run_is_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of_sweep()
    tried = []

    def fails(*arguments: object) -> dict[str, object]:
        tried.append(arguments)
        raise TrainingError("no number")

    monkeypatch.setattr(sweep, "run_one", fails)
    for times in (1, 2):
        rows = sweep.run_sweep([{}], [0], Params(), data, place / "runs")
        assert rows == [{"parameters": {}, "seed": 0, "failed": "no number"}]
        assert len(tried) == times
    monkeypatch.setattr(sweep, "run_one", lambda *arguments: {"epoch": 1})
    assert sweep.run_sweep([{}], [0], Params(), data, place / "runs") == [{"parameters": {}, "seed": 0, "epoch": 1}]


def test_the_time_of_enhancement_is_that_of_vectors_in_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that reading and writing move by hours, and enhancing by 7 µs a vector, the first time by more."""
    now, calls = [0.0], []
    monkeypatch.setattr(sweep, "perf_counter", lambda: now[0])

    def slow(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def taking(*given: Any, **named: Any) -> Any:
            now[0] += 3600
            return real(*given, **named)

        monkeypatch.setattr(owner, name, taking)

    slow(EmbeddingStore, "read_rows")
    slow(enhance, "load_model")
    slow(journal, "write_store")
    real = sweep.enhance_vectors

    def timed(model: SeedModel, vectors: np.ndarray, *given: Any) -> np.ndarray:
        calls.append(len(vectors))
        now[0] += (7e-6 if calls.count(len(vectors)) > 1 else 1.0) * len(vectors)
        return real(model, vectors, *given)

    monkeypatch.setattr(sweep, "enhance_vectors", timed)
    row = sweep.run_one(read_params(Path("p.yaml")), data_of_sweep(), {})
    assert row["enhance_us"] == pytest.approx(7, rel=1e-3)
    assert calls.count(sweep.TIMED) == 1 + sweep.REPEATS


def test_least_costs_are_those_of_the_scores(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "g.yaml").write_text("{seeds: [0], runs: [{enhance.strength: 0.0}]}")  # raw vectors, whatever is learnt
    points = "[{p_target: 0.01}, {p_target: 0.2, c_miss: 10.0, c_fa: 2.0}]"
    (place / "p.yaml").write_text(PARAMS.replace("bootstrap: 5", f"bootstrap: 5, operating_points: {points}"))
    code, _, err = run(capsys, *COMMAND)
    assert code == 0, err
    row = next(csv.DictReader((place / "out/sweep.csv").open()))
    vectors = {name: EmbeddingStore.open(place / f"raw/{name}.zarr").read()[:, 0, 0] for name in ("clean", "noise0")}
    units = {name: each / np.linalg.norm(each, axis=1, keepdims=True) for name, each in vectors.items()}
    who = [row.speaker for row in read_manifest(place / "clean.csv")]
    trials = [(one, other) for one in range(len(who)) for other in range(len(who)) if one != other]
    same = np.array([who[one] == who[other] for one, other in trials])
    for condition in ("clean", "noise0"):
        scores = np.array([units["clean"][one] @ units[condition][other] for one, other in trials])
        for name, target, miss, alarm in (("0.01", 0.01, 1, 1), ("0.2_10_2", 0.2, 10, 2)):
            costs = [
                miss * target * np.mean(scores[same] <= level) + alarm * (1 - target) * np.mean(scores[~same] > level)
                for level in [-2, *scores]
            ]
            least = min(costs) / min(miss * target, alarm * (1 - target))
            assert float(row[f"{condition} min_dcf_{name}"]) == pytest.approx(least, rel=1e-4)
    assert not [name for name in row if name.startswith("clean min_dcf") and name.endswith(("ci", "old"))]


def test_grids_that_cannot_be_run_are_one_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    for text, says in (
        ("seeds: [0]\n", "neither a grid nor runs"),
        ("grid: {train.speed: [1]}\n", "train.speed: no such parameter"),
        (
            "grid: {train.objective: [gan]}\n",
            "train.objective=gan, seed=0: train.objective: must be one of seed, gap, dae, vmf-pl, bridge",
        ),
        ("grids: {}\n", "unknown key"),
        (
            "grid: {train.objective: [seed, dae], train.network.predict: [correction, epsilon]}\n",
            "train.objective=dae, train.network.predict=epsilon, seed=0: train: objective dae has no noise to predict",
        ),
        ("runs: [{}, {data.draws: 3}]\n", "data.draws=3: train.zarr has 2 draws."),
        ("runs: [{}, {data.speakers: 7, a: 1}]\n", "data.speakers=7, a=1: train.zarr has 6 speakers."),
        ("grid: {seed: [5, 6]}\n", "seed: a grid file lists seeds under the key seeds."),
        ("runs: [{}, {extract.draws: 2}]\n", "extract.draws: a sweep does not use it."),
        ("runs: [{}, {score.systems: {}}]\n", "score.systems: a sweep does not use it."),
        ("grid: {train.swap: [2020-01-01]}\n", "g.yaml: train.swap=2020-01-01: not a parameter value"),
        ("runs: [&a {train.log: [*a]}]\n", "not a parameter value (Circular reference detected)"),
    ):
        (place / "g.yaml").write_text(text)
        code, out, err = run(capsys, *COMMAND)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert says in err
    assert not list(place.glob("out/runs/*"))


def test_a_manifest_that_lacks_an_utterance_is_one_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    write_manifest(place / "train.csv", read_manifest(place / "train.csv")[:-1])
    code, out, err = run(capsys, *COMMAND)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "train.csv: has no utterance 'f/3'" in err


def test_changes_have_dotted_names() -> None:
    found = apply_changes(Params(), {"train.network.blocks": 2, "enhance.timestep": 7})
    assert (found.train.network.blocks, found.enhance.timestep) == (2, 7)
    kept = apply_changes(found, {"train.network": {"width": 3}})  # what a section does not name stays
    assert (kept.train.network.blocks, kept.train.network.width) == (2, 3)
    with pytest.raises(ConfigError, match=r"enhance\.timestep\.x: no such parameter"):
        apply_changes(Params(), {"enhance.timestep.x": 1})


def test_combinations_are_distinct(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("seeds: [1, 0, 1]\ngrid: {a: [1, 2], b: [3]}\nruns: [{b: 3, a: 1}, {c: 1}]\n")
    assert read_grid(tmp_path / "g.yaml") == ([{"a": 1, "b": 3}, {"a": 2, "b": 3}, {"c": 1}], [1, 0])


def test_seeds_are_averaged() -> None:
    rows = [
        {
            "parameters": {"a": 1},
            "validation_loss": loss,
            "train_seconds": 1.0,
            "test": {"clean": {"eer": 1.0}, "mean noisy": {"eer": loss}},
        }
        for loss in (2.0, 4.0)
    ]
    text = render_sweep(json.loads(json.dumps(rows)))
    assert "| `a=1` | 2 | 3.00 ± 1.00 |  |  | 1.00 ± 0.00 | 3.00 ± 1.00 | 1.00 ± 0.00 |" in text
