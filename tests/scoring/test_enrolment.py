from pathlib import Path

import numpy as np
import pytest

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError, UnknownUtteranceError
from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.scoring.enrolment import average_models, read_models
from pipeline.scoring.scorer import score_list
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store

IDS = ("u0", "u1", "u2", "u3")


def test_a_model_is_the_mean_of_its_unit_vectors_at_unit_length(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("anna u2 u0\n\nbert u1\n")
    models = read_models(tmp_path / "m.txt", IDS)
    assert models.names == ("anna", "bert")
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], dtype=np.float32)
    found = average_models(vectors, models)
    np.testing.assert_allclose(found[0], np.array([1.6, 0.8]) / np.sqrt(1.6**2 + 0.8**2), rtol=1e-6)
    np.testing.assert_allclose(found[1], [0, 1])


def test_what_failed_is_left_out_of_a_model_and_a_model_of_nothing_else_out_of_the_trials(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((4, 2, 1, 8)).astype(np.float32)
    status = np.array([OK, OK, FAILED, OK], dtype=np.uint8)
    values[2] = np.nan
    write_store(tmp_path / "s.zarr", IDS, values, status, {"encoder": "toy", "weights_sha256": "0", "dim": 8})
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    (tmp_path / "m.txt").write_text("whole u0 u1\npart u2 u1\nnone u2\n")
    models = read_models(tmp_path / "m.txt", store.utterances)
    trials = Trials(np.array([0, 1, 2]), np.array([3, 3, 3]), None)
    kept, scores = score_list(store, store, trials, models)
    assert kept.enrol.tolist() == [0, 1]
    unit = mean_units(unit_crops(store.read()[:, :, 0]))
    both = unit[0] + unit[1]
    expected = [both @ unit[3] / np.linalg.norm(both), unit[1] @ unit[3]]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "anna u0 u2\nbert u1\n",
        "modelid\tsegmentid\tside\nanna\tu0\ta\nbert\tu1\ta\nanna\tu2\ta\n",
        "segmentid,modelid\nu0,anna\nu2,anna\nu1,bert\n",
    ],
)
def test_models_are_lines_or_a_table_with_one_utterance_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.txt").write_text(text)
    models = read_models(tmp_path / "m.txt", IDS)
    assert models.names == ("anna", "bert")
    assert [IDS[row] for row in models.rows] == ["u0", "u2", "u1"]
    assert models.starts.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modelid segmentid\nanna u0\nanna u0\n", "m.txt:3: model 'anna' names an utterance twice"),
        ("modelid segmentid\nanna\n", "m.txt:2: 1 fields where the header has 2"),
        ("modelid segmentid\n", "lists no models"),
        ("anna u0\nbert\n", "m.txt:2: model 'bert' has no utterances"),
        ("anna u0\nanna u1\n", "m.txt:2: model 'anna' is already on line 1"),
        ("anna u0 u0\n", "m.txt:1: model 'anna' names an utterance twice"),
        ("\n", "lists no models"),
    ],
)
def test_malformed_models_are_errors(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(TrialError, match=says):
        read_models(tmp_path / "m.txt", IDS)


def test_unknown_utterances_of_models_are_placed(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("anna u0 u9\nbert u1\ncarl u8 wav/u1\n")
    with pytest.raises(UnknownUtteranceError, match=r"2 of 3 models .*first: u9 \(.*m\.txt:1\), u8 \(.*txt:3\), wav"):
        read_models(tmp_path / "m.txt", IDS)
