"""`seed score --system`: systems of `score.systems`, with a cohort and a model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.train import NetworkSettings, Train
from pipeline.data.manifest import Utterance, write_manifest
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import save_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store
from tests.stages.test_cli import run

COMMAND = ["score", "--system", "raw=raw", "--system", "seed=seed", "--manifest", "clean.csv", "--out", "r"]
COHORT = ["--cohort", "train.zarr", "--cohort-manifest", "train.csv"]
SYSTEMS = """
conditions: [clean]
sets: [train, clean]
score:
  bootstrap: 10
  systems:
    as: {of: seed, norm: as, top: 10}
    original: {of: seed, ensemble: 1.0}
    sum: {of: seed, ensemble: 0.5}
    plain_sum: {of: seed, ensemble: 0.5, lengths: own}
    joined: {fuse: [raw, as], calibrate: cohort}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores of six speakers, raw and enhanced, and a cohort of others."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    made_of = {"encoder": "toy", "weights_sha256": "ab", "dim": 8}
    for name, speakers, views in (("raw/clean", "abcdef", 1), ("train", "ghijkl", 2)):
        ids = [f"{speaker}/{number}" for speaker in speakers for number in range(4)]
        values = np.repeat(rng.standard_normal((6, 1, 1, 8)), 4, axis=0) + rng.standard_normal((24, 1, views, 8))
        write_store(tmp_path / f"{name}.zarr", ids, values.astype(np.float32), np.full(24, OK, np.uint8), made_of)
        rows = [Utterance(each, f"{each}.wav", each[0], 2.0) for each in ids]
        write_manifest(tmp_path / f"{Path(name).name}.csv", rows)
    raw = EmbeddingStore.open(tmp_path / "raw/clean.zarr")
    model = SeedModel(8, Train(network=NetworkSettings(predict="sample", precondition="none")))
    for parameter in model.network.parameters():
        parameter.data.copy_(0.2 * torch.from_numpy(rng.standard_normal(tuple(parameter.shape))))
    save_model(tmp_path / "m.safetensors", model, raw.encoder(), {})
    enhance_store(raw, tmp_path / "m.safetensors", tmp_path / "seed/clean.zarr")
    (tmp_path / "p.yaml").write_text(SYSTEMS)
    return tmp_path


def test_every_line_is_a_system_and_the_protocol_tells_of_it(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, _, err = run(capsys, *COMMAND, *COHORT, "--model", "m.safetensors", "--params", "p.yaml")
    assert (code, err) == (0, "")
    written = json.loads((place / "r/metrics.json").read_text())
    table = written["results"]["clean"]
    assert list(table) == ["raw", "seed", "as", "original", "sum", "plain_sum", "joined"]
    # All of the original, none of the enhanced, in the space of a model that only scales.
    assert table["original"]["eer"] == table["raw"]["eer"] != table["seed"]["eer"]
    assert "cllr" in table["joined"]
    stores = {store["role"]: store for store in written["protocol"]["stores"]}
    assert list(stores) == ["raw/clean", "seed/clean", "cohort"]
    assert stores["seed/clean"]["enhanced_by_sha256"]
    assert written["protocol"]["score"]["systems"]["as"]["norm"] == "as"
    files = ["det.csv", "distances.csv", "groups.csv", "histogram.csv", "map.csv", "metrics.json"]
    assert sorted(path.name for path in (place / "r").iterdir()) == files


def test_vectors_that_are_there_are_scored_without_torch(place: Path) -> None:
    """It takes longer to start than they take; the model, which the pipeline always gives, is not needed."""
    (place / "p.yaml").write_text("conditions: [clean]\nsets: [train, clean]\nscore: {bootstrap: 10}\n")
    arguments = [*COMMAND, *COHORT, "--model", "m.safetensors", "--params", "p.yaml"]
    code = f"import sys; from stages.cli import main; main({arguments}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (COHORT, "seed/clean.zarr: the model that made it is needed"),
        (["--model", "m.safetensors"], "score.systems.joined: needs a cohort. Give its store with --cohort."),
        ([*COHORT[:2], "--model", "m.safetensors"], "train.zarr: PLDA, calibration and cohorts of speakers need"),
        (["--cohort", "seed/clean.zarr", "--model", "m.safetensors"], "holds enhanced embeddings already"),
    ],
)
def test_what_is_missing_is_one_line(
    capsys: pytest.CaptureFixture[str], place: Path, options: list[str], says: str
) -> None:
    code, out, err = run(capsys, *COMMAND, *options, "--params", "p.yaml")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert says in err
    assert not (place / "r").exists()


def test_failed_utterances_are_counted_and_named(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    for name, row in (("raw/clean", 2), ("train", 5)):
        store = EmbeddingStore.open(place / f"{name}.zarr")
        values, status = store.read(), store.status.copy()
        values[row], status[row] = np.nan, FAILED
        attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
        write_store(place / f"{name}.zarr", store.utterances, values, status, attributes)
    arguments = [*COMMAND, *COHORT, "--model", "m.safetensors", "--params", "p.yaml"]
    code, _, err = run(capsys, *arguments)
    assert code == 0
    assert "1 utterance failed (a/2) in a store; no trial of any system or condition uses them" in err
    assert "train.zarr: 1 utterance failed (h/1); the cohort is made without them" in err
    protocol = json.loads((place / "r/metrics.json").read_text())["protocol"]
    assert protocol["left_out"] == {"utterances": 1, "ids": ["a/2"], "file": "left_out.txt"}
    assert len(protocol["warnings"]) == 2
    assert (place / "r/left_out.txt").read_text() == "a/2\n"

    (place / "lists").mkdir()
    trials = "1 a/0 a/1\n0 a/0 b/0\n1 a/2 a/0\n0 a/2 b/1\n1 b/0 b/1\n"
    (place / "lists/own.txt").write_text(trials)
    code, _, err = run(capsys, *arguments, "--lists", "lists", "--out", "l")
    assert code == 0
    assert "trial list own: 2 of 5 trials left out: 1 utterance failed (a/2)" in err
    (described,) = json.loads((place / "l/metrics.json").read_text())["protocol"]["lists"]
    assert (described["trials"], described["targets"], described["listed"]) == (3, 2, 5)

    (place / "c.yaml").write_text("one: {title: t, licence: l, lists: {own: {path: own.txt, source: a page}}}\n")
    code, _, err = run(capsys, *arguments, "--lists", "lists", "--corpora", "c.yaml", "--out", "m")
    assert code == 1
    assert "trial list own: 2 of 5 trials left out" in err
    assert not (place / "m").exists()


def test_a_cohort_of_the_trials_is_counted(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    cohort = ["--cohort", "raw/clean.zarr", "--cohort-manifest", "clean.csv", "--model", "m.safetensors"]
    code, _, err = run(capsys, *COMMAND, *cohort, "--params", "p.yaml")
    assert code == 0
    assert "24 utterances and 6 speakers of the cohort are in the trials" in err
    assert json.loads((place / "r/metrics.json").read_text())["protocol"]["warnings"]
