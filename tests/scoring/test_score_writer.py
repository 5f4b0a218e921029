import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.score import ScoreFormat
from pipeline.data.trials.lists import read_list
from pipeline.data.trials.streaming import BLOCK, spool_trials
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.scoring.score_files import read_scores
from pipeline.scoring.score_writer import FILES, make_line_formatter, score_to_file
from pipeline.scoring.scorer import score_list, scorer_of
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store

IDS = tuple(f"a/{row}.wav" for row in range(20))


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    values = np.random.default_rng(0).standard_normal((20, 2, 1, 8)).astype(np.float32)
    status = np.full(20, OK, dtype=np.uint8)
    values[3], status[3] = np.nan, FAILED
    write_store(tmp_path / "s.zarr", IDS, values, status, {"encoder": "toy", "weights_sha256": "ab", "dim": 8})
    return EmbeddingStore.open(tmp_path / "s.zarr")


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("labeled", [True, False])
def test_the_file_is_the_list_with_scores(
    tmp_path: Path, store: EmbeddingStore, form: ScoreFormat, labeled: bool
) -> None:
    pairs = [(a, b) for a in range(20) for b in range(20)]
    lines = [f"{int(a == b)} {IDS[a]} {IDS[b]}" if labeled else f"{IDS[a]} {IDS[b]}" for a, b in pairs]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    kept, expected = score_list(store, store, read_list(tmp_path / "t.txt", IDS, IDS).trials)
    out, told = tmp_path / FILES[form], []
    with spool_trials(tmp_path / "t.txt", IDS, IDS) as spool:
        scores, target, count = score_to_file(spool, scorer_of(store, store), (IDS, IDS), form, out, told.append)
    assert (count, sum(told)) == (19 * 19, 400)
    if labeled:
        np.testing.assert_array_equal(scores, expected)
        np.testing.assert_array_equal(target, kept.target)
    else:
        assert (len(scores), target) == (0, None)
    read = read_scores(out)
    np.testing.assert_allclose(read.scores, expected, atol=6e-7)
    enrol, test = ([names[row] for row in rows] for names, rows in zip(read.names, read.pairs, strict=True))
    assert enrol == [IDS[row] for row in kept.enrol]
    assert test == [IDS[row] for row in kept.test]
    if labeled and form != "kaldi":
        np.testing.assert_array_equal(read.target, kept.target)
    else:
        assert read.target is None


def test_a_list_of_several_blocks_is_one_file(tmp_path: Path, store: EmbeddingStore) -> None:
    count = BLOCK + 1000
    rows = np.random.default_rng(0).integers(20, size=(2, count))
    (tmp_path / "t.txt").write_text("".join(f"{int(a == b)} {IDS[a]} {IDS[b]}\n" for a, b in rows.T))
    with spool_trials(tmp_path / "t.txt", IDS, IDS) as spool:
        scores, target, _ = score_to_file(spool, scorer_of(store, store), (IDS, IDS), "csv", tmp_path / "s.csv")
    kept, expected = score_list(store, store, Trials(*rows, rows[0] == rows[1]))
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(target, kept.target)
    with (tmp_path / "s.csv").open() as file:
        written = [(row["enrolment"], row["test"]) for row in csv.DictReader(file)]
    assert written == [(IDS[a], IDS[b]) for a, b in zip(kept.enrol, kept.test, strict=True)]


def test_a_list_of_failed_utterances_is_an_error(tmp_path: Path, store: EmbeddingStore) -> None:
    (tmp_path / "t.txt").write_text(f"{IDS[3]} {IDS[4]}\n")
    with (
        spool_trials(tmp_path / "t.txt", IDS, IDS) as spool,
        pytest.raises(TrialError, match="no trials are left"),
    ):
        score_to_file(spool, scorer_of(store, store), (IDS, IDS), "csv", tmp_path / "s.csv")


def test_ids_that_hold_marks_are_quoted_in_a_csv_and_refused_elsewhere() -> None:
    names = ["a b", "x,1", 'say "y"', "plain"]
    trials = Trials(np.arange(4), np.arange(4)[::-1].copy(), np.array([True, False, True, False]))
    scores = np.array([0.25, -0.5, 1e-7, 2], dtype=np.float32)
    text = make_line_formatter("csv", names, names)(trials, scores).decode()
    rows = list(csv.reader(text.splitlines()))
    assert [row[1] for row in rows] == names
    assert [row[2] for row in rows] == names[::-1]
    assert [(row[0], row[3]) for row in rows] == [
        ("1", "0.250000"),
        ("0", "-0.500000"),
        ("1", "0.000000"),
        ("0", "2.000000"),
    ]
    for form in ("kaldi", "txt"):
        with pytest.raises(TrialError, match="'a b': an id with spaces"):
            make_line_formatter(form, names, names)
