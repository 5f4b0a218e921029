"""`seed score` of one trial list: by file, by name, with models, without labels."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store
from tests.conftest import tree_bytes
from tests.stages.test_cli import run

CORPORA = """
one:
  title: t
  licence: l
  lists:
    known: {path: lists/known.txt, trials: 3, targets: 1, source: the page}
    gone: {path: lists/gone.txt, source: the page of its publisher}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of three speakers, definitions and lists."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEED_DATA", raising=False)
    rng = np.random.default_rng(0)
    ids = [f"{speaker}/{number}.wav" for speaker in "abc" for number in range(3)]
    values = np.repeat(rng.standard_normal((3, 1, 1, 8)), 3, axis=0) + 0.1 * rng.standard_normal((9, 1, 1, 8))
    attributes = {"encoder": "toy", "weights_sha256": "0", "dim": 8}
    write_store(tmp_path / "s.zarr", ids, values.astype(np.float32), np.full(9, OK, np.uint8), attributes)
    (tmp_path / "c.yaml").write_text(CORPORA)
    (tmp_path / "root/lists").mkdir(parents=True)
    (tmp_path / "root/lists/known.txt").write_text("1 a/0.wav a/1.wav\n0 a/0.wav b/1.wav\n0 c/0.wav b/1.wav\n")
    return tmp_path


STORES = ["score", "--enrol", "s.zarr", "--test", "s.zarr", "--corpora", "c.yaml", "--data-root", "root", "--out", "r"]


def test_a_list_is_scored_by_its_name(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, err = run(capsys, *STORES, "--trials", "known")
    assert (code, err) == (0, "")
    assert "EER 0.00 %" in out
    assert json.loads((place / "r/metrics.json").read_text())["results"]["nontargets"] == 2
    (place / "root/lists/known.txt").write_text(
        "1 a/0.wav a/1.wav\n0 a/0.wav b/1.wav\n0 a/0.wav b/1.wav\n1 c/0.wav c/1.wav\n"
    )
    code, _, err = run(capsys, *STORES, "--trials", "known")
    assert code == 0
    assert "trial list known: 4 trials where 3 are published and 2 targets where 1 are published" in err
    assert "root/lists/known.txt: 1 trials repeat an earlier one\n" in err


def test_a_store_replaced_after_it_was_opened_is_an_error(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store = EmbeddingStore.open

    def open_and_replace(path: Path, unfinished: bool = False) -> EmbeddingStore:
        store = open_store(path, unfinished)
        attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
        ids = np.roll(store.utterances, 1).tolist()
        write_store(path, ids, np.roll(store.read(), 1, axis=0), store.status, attributes)
        return store

    monkeypatch.setattr(EmbeddingStore, "open", open_and_replace)
    code, _, err = run(capsys, *STORES, "--trials", "known")
    assert code == 1
    assert err.count("\n") == 1
    assert "s.zarr: was replaced or removed while it was read. Run the command again." in err
    assert not (place / "r").exists()


@pytest.fixture
def failing(place: Path) -> Path:
    """The same with two utterances that failed."""
    store = EmbeddingStore.open("s.zarr")
    values, status = store.read(), store.status.copy()
    values[[1, 8]], status[[1, 8]] = np.nan, FAILED  # a/1.wav and c/2.wav
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    write_store(place / "s.zarr", store.utterances, values, status, attributes)
    (place / "t.txt").write_text("1 a/0.wav a/2.wav\n0 a/0.wav b/1.wav\n1 a/1.wav a/0.wav\n0 c/2.wav b/1.wav\n")
    return place


def test_trials_of_failed_utterances_are_counted_and_named(capsys: pytest.CaptureFixture[str], failing: Path) -> None:
    code, out, err = run(capsys, *STORES, "--trials", "t.txt")
    assert code == 0
    assert err == "  2 of 4 trials left out: 2 utterances failed (a/1.wav, c/2.wav)\n"
    assert "2 trials" in out
    protocol = json.loads((failing / "r/metrics.json").read_text())["protocol"]
    assert protocol["left_out"] == {"utterances": 2, "ids": ["a/1.wav", "c/2.wav"], "file": "left_out.txt"}
    assert {key: protocol["trials"][key] for key in ("trials", "targets", "listed")} == {
        "trials": 2,
        "targets": 1,
        "listed": 4,
    }
    assert (failing / "r/left_out.txt").read_text() == "a/1.wav\nc/2.wav\n"
    (failing / "t.txt").write_text("1 a/0.wav a/2.wav\n0 a/0.wav b/1.wav\n")
    assert run(capsys, *STORES, "--trials", "t.txt")[2] == ""
    assert not (failing / "r/left_out.txt").exists()
    protocol = json.loads((failing / "r/metrics.json").read_text())["protocol"]
    assert "left_out" not in protocol
    assert "listed" not in protocol["trials"]


def test_of_a_published_list_no_trial_may_be_lost_unasked(capsys: pytest.CaptureFixture[str], failing: Path) -> None:
    (failing / "root/lists/known.txt").write_text((failing / "t.txt").read_text())
    code, _, err = run(capsys, *STORES, "--trials", "known")
    assert code == 1
    assert "2 of 4 trials left out: 2 utterances failed (a/1.wav, c/2.wav). Repair their recordings" in err
    assert "--max-left-out 2" in err
    assert not (failing / "r").exists()
    assert run(capsys, *STORES, "--trials", "known", "--max-left-out", "1")[0] == 1
    assert run(capsys, *STORES, "--trials", "known", "--max-left-out", "2")[0] == 0
    assert run(capsys, *STORES, "--trials", "t.txt", "--max-left-out", "1")[0] == 1


def test_a_list_that_loses_a_class_says_why(capsys: pytest.CaptureFixture[str], failing: Path) -> None:
    (failing / "t.txt").write_text("1 a/0.wav a/1.wav\n0 a/0.wav b/1.wav\n")
    code, _, err = run(capsys, *STORES, "--trials", "t.txt")
    assert code == 1
    assert "t.txt: no targets are left. 1 of 2 trials left out: 1 utterance failed (a/1.wav)" in err


def test_models_that_lose_an_utterance_say_so(capsys: pytest.CaptureFixture[str], failing: Path) -> None:
    (failing / "m.txt").write_text("anna a/0.wav a/1.wav\ncarl c/2.wav\nbert b/0.wav\n")
    (failing / "t.txt").write_text("anna a/2.wav target\nbert a/2.wav nontarget\ncarl a/2.wav nontarget\n")
    code, out, err = run(capsys, *STORES, "--trials", "t.txt", "--enrolment", "m.txt")
    assert code == 0
    assert "1 of 3 trials left out: 1 utterance failed (carl)" in err
    assert "m.txt: 2 utterances failed (a/1.wav, c/2.wav); models are made without them" in err
    assert "2 trials" in out
    protocol = json.loads((failing / "r/metrics.json").read_text())["protocol"]
    assert protocol["left_out"]["ids"] == ["carl", "a/1.wav", "c/2.wav"]


def test_models_enrol_with_several_utterances(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "m.txt").write_text("anna a/0.wav a/2.wav\nbert b/0.wav\n")
    (place / "t.csv").write_text("modelid,segmentid,targettype\nanna,a/1.wav,target\nbert,a/1.wav,nontarget\n")
    code, out, _ = run(capsys, *STORES, "--trials", "t.csv", "--enrolment", "m.txt")
    assert code == 0
    assert "2 trials" in out
    rows = list(csv.DictReader((place / "r/scores.csv").open()))
    assert [(row["label"], row["enrolment"], row["test"]) for row in rows] == [
        ("1", "anna", "a/1.wav"),
        ("0", "bert", "a/1.wav"),
    ]
    (place / "t.csv").write_text("modelid,segmentid,targettype\nanna,a/1.wav,target\ncarl,a/1.wav,nontarget\n")
    code, _, err = run(capsys, *STORES, "--trials", "t.csv", "--enrolment", "m.txt")
    assert code == 1
    assert "not among the enrolment models or in the store, first: carl (t.csv:3)" in err


def test_a_list_without_labels_is_scored_and_not_measured(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    run(capsys, *STORES, "--trials", "known")
    (place / "t.txt").write_text("a/0.wav a/1.wav\nc/0.wav b/1.wav\n")
    code, out, err = run(capsys, *STORES, "--trials", "t.txt")
    assert code == 0
    assert "2 scores" in out
    assert "has no labels, so there are no error rates" in err
    assert (place / "r/scores.csv").read_text().splitlines()[1].startswith(",a/0.wav,a/1.wav,0.9")
    assert not (place / "r/metrics.json").exists()


def test_figures_say_what_they_were_made_of(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    run(capsys, *STORES, "--trials", "known", "--comparison", "pairwise")
    protocol = json.loads((place / "r/metrics.json").read_text())["protocol"]
    listed = (place / "root/lists/known.txt").read_bytes()
    assert protocol["trials"] == {
        "file": "known.txt",
        "sha256": hashlib.sha256(listed).hexdigest(),
        "form": "VoxCeleb",
        "trials": 3,
        "targets": 1,
    }
    assert protocol["stores"][0]["store"] == "s.zarr"
    assert protocol["stores"][1]["weights_sha256"] == "0"
    assert protocol["comparison"] == "pairwise"
    assert "enrolment" not in protocol
    assert str(place) not in json.dumps(protocol)


@pytest.mark.parametrize(
    ("form", "first"),
    [("csv", "label,enrolment,test,score"), ("kaldi", "a/0.wav a/1.wav 0.9"), ("txt", "1 a/0.wav a/1.wav 0.9")],
)
def test_each_form_is_measured_again_and_leaves_no_other_behind(
    capsys: pytest.CaptureFixture[str], place: Path, form: str, first: str
) -> None:
    for other in ("txt", "csv"):
        run(capsys, *STORES, "--trials", "known", "--format", other)
    code, out, _ = run(capsys, *STORES, "--trials", "known", "--format", form)
    assert (code, out.splitlines()[0]) == (0, "EER 0.00 %, minDCF(0.01) 0.000, 3 trials")
    scores = place / "r" / ("scores.csv" if form == "csv" else "scores.txt")
    assert [path.name for path in (place / "r").glob("scores.*")] == [scores.name]
    assert scores.read_text().startswith(first)
    labels = ["--trials", "root/lists/known.txt"] if form == "kaldi" else []
    assert "EER 0.00 %" in run(capsys, "metrics", scores, *labels)[1]
    assert "difference +0.00" in run(capsys, "compare", scores, scores, *labels)[1]


def test_pairwise_models_are_scored(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "m.txt").write_text("anna a/0.wav a/2.wav\nbert b/0.wav\n")
    (place / "t.txt").write_text("1 anna a/1.wav\n0 bert a/1.wav\n")
    options = ["--trials", "t.txt", "--enrolment", "m.txt", "--comparison", "pairwise"]
    code, out, _ = run(capsys, *STORES, *options)
    assert code == 0
    assert "EER 0.00 %" in out
    protocol = json.loads((place / "r/metrics.json").read_text())["protocol"]
    assert protocol["enrolment"]["sha256"] == hashlib.sha256((place / "m.txt").read_bytes()).hexdigest()


def test_a_run_that_fails_leaves_what_there_was(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    run(capsys, *STORES, "--trials", "known")
    before = tree_bytes(place / "r")
    values = np.ones((2, 1, 1, 8), dtype=np.float32)
    values[1] = 0
    attributes = {"encoder": "toy", "weights_sha256": "0", "dim": 8}
    write_store(place / "z.zarr", ["a/0.wav", "a/1.wav"], values, np.full(2, OK, np.uint8), attributes)
    (place / "t.txt").write_text("1 a/0.wav a/0.wav\n0 a/0.wav a/1.wav\n")
    code, _, err = run(capsys, "score", "--enrol", "z.zarr", "--test", "z.zarr", "--trials", "t.txt", "--out", "r")
    assert code == 1
    assert err == (
        "seed: error: z.zarr: 1 of 2 utterances have a vector of zeros, which has no direction, first: a/1.wav."
        " Import it again with --skip zeros, or extract it again; they then count as failed.\n"
    )
    assert tree_bytes(place / "r") == before


def test_stores_that_do_not_fit_are_refused_before_the_list_is_read(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    values = np.ones((1, 1, 1, 4), dtype=np.float32)
    attributes = {"encoder": "toy", "weights_sha256": "0", "dim": 4}
    write_store(place / "four.zarr", ["a"], values, np.full(1, OK, np.uint8), attributes)
    (place / "bad.txt").write_text("no list\n")
    sides = ["--enrol", "s.zarr", "--test", "four.zarr", "--trials", "bad.txt", "--out", "r"]
    code, _, err = run(capsys, "score", *sides)
    assert code == 1
    assert "s.zarr and four.zarr cannot be compared: dim is 8 and 4." in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--trials", "unheard"], "no trial list 'unheard': neither a file nor one of known, gone"),
        (["--trials", "gone"], "no file root/lists/gone.txt. Get it: the page of its publisher"),
        (["--trials", "t.txt", "--corpora", "none.yaml"], "t.txt: no such file, and no corpus"),
        (["--trials", "root"], "root: is a folder"),
        (["--trials", "s.txt"], "the list's ids begin with 'wav/', and the list has the extension '.flac'"),
    ],
)
def test_a_list_that_will_not_do_is_one_line(
    capsys: pytest.CaptureFixture[str], place: Path, arguments: list[str], says: str
) -> None:
    (place / "s.txt").write_text("1 wav/a/0.flac wav/a/1.flac\n")
    code, _, err = run(capsys, *STORES, *arguments)
    assert code == 1
    assert err.startswith("seed: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert not (place / "r").exists()
