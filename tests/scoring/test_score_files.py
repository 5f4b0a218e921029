import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError, UnknownUtteranceError
from pipeline.scoring.groups import group_trials
from pipeline.scoring.score_files import (
    check_same_trials,
    label_sides,
    read_labels,
    read_scores,
    require_labels,
    select_trials,
)
from pipeline.scoring.score_writer import format_header, make_line_formatter

FORMS = {
    "score label": "0.5 1\n\n-0.5 0\n1e-3 target\n0 nontarget\n",
    "label enrolment test score": "1 a x 0.5\n0\tb\tx -0.5\ntarget b y 1e-3\nnontarget a y 0\n",
    "table": 'label,enrolment,test,score\n1,a,x,0.5\n0,"b",x,-0.5\n1,b,y,1e-3\n\n0,a,y,0\n',
    "enrolment test score": "a x 0.5\nb x -0.5\nb y 1e-3\na y 0",
}


def write(folder: Path, text: str, name: str = "scores.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_detected(tmp_path: Path, form: str) -> None:
    scored = read_scores(write(tmp_path, "\ufeff" + FORMS[form]))
    assert scored.scores.tolist() == [0.5, -0.5, 1e-3, 0]
    if form == "enrolment test score":
        assert scored.target is None
        with pytest.raises(TrialError, match="no labels"):
            require_labels(scored)
    else:
        assert require_labels(scored).tolist() == [True, False, True, False]
    assert scored.named == (form != "score label")
    if scored.named:
        assert scored.names == (("a", "b"), ("x", "y"))
        assert [side.tolist() for side in scored.pairs] == [[0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "scores.txt: holds no scores"),
        ("label,enrolment,test,score\n", "scores.txt: holds no scores"),
        ("0.5\n", "scores.txt:1: expected `score label`, `enrolment test score`, `label"),
        ("1 a x 0.5 7\n", "scores.txt:1: expected `score label`"),
        ("\n0.5 1\n0.5 2\n", "scores.txt:3: expected `score label`, found '0.5 2'"),
        ("1 0.5\n", "scores.txt:1: expected `score label`, found '1 0.5'"),
        ("a b 0.5\na c\n", "scores.txt:2: expected `enrolment test score`, found 'a c'"),
        ("a b 0.5\n1 a c 0.5\n", "scores.txt:2: expected `enrolment test score`"),
        ("1 a b\n", "scores.txt:1: expected `enrolment test score`, found '1 a b'"),
        ("a b nan\n", "scores.txt:1: expected `enrolment test score`, found 'a b nan'"),
        ("a b inf\n", "scores.txt:1: expected"),
        ("1 a x 0.5\n0 a x 0.4\n", "scores.txt:2: the pair already has a score"),
        ("label,enrolment,test,score\n1,a,b,0\n2,a,c,0\n", "scores.txt:3: expected `label enrolment test score`"),
        ("label,enrolment,test,score\n1,a,b,0\n,a,c,0\n", "scores.txt:3: has no label, although"),
        ("label,enrolment,test,score\n1,a,b\n", "scores.txt:2: expected"),
    ],
)
def test_anything_else_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TrialError) as caught:
        read_scores(write(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="no such file"):
        read_scores(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrialError, match="not a text file in UTF-8"):
        read_scores(tmp_path / "b.txt")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(alphabet='01 ab.,"\n\t-e', max_size=60))
def test_no_text_raises_anything_but_our_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fuzz.txt"
    path.write_text(text)
    try:
        scored = read_scores(path)
    except TrialError:
        return
    assert np.isfinite(scored.scores).all()
    assert len(scored.scores) == (len(scored.pairs[0]) if scored.named else len(require_labels(scored)))


def test_scores_we_write_are_read(tmp_path: Path) -> None:
    trials = Trials(np.array([0, 1, 0]), np.array([1, 1, 0]), np.array([True, False, False]))
    scores = np.array([0.25, -0.5, 0.125], dtype=np.float32)
    written = format_header("csv") + make_line_formatter("csv", ["a b", "c"], ["x,1", "y"])(trials, scores)
    (tmp_path / "scores.csv").write_bytes(written)
    scored = read_scores(tmp_path / "scores.csv")
    assert scored.scores.tolist() == scores.tolist()
    assert require_labels(scored).tolist() == trials.target.tolist()
    assert scored.names == (("a b", "c"), ("y", "x,1"))


def test_a_trial_list_labels_orders_and_selects(tmp_path: Path) -> None:
    scored = read_scores(write(tmp_path, FORMS["enrolment test score"]))
    trials = write(tmp_path, "0 a y\n1 b y\n1 a x\n0 a y\n", "trials.txt")
    chosen = select_trials(scored, trials)
    assert chosen.scores.tolist() == [0, 1e-3, 0.5, 0]
    assert require_labels(chosen).tolist() == [False, True, True, False]
    assert [chosen.names[0][row] for row in chosen.pairs[0]] == ["a", "b", "a", "a"]


@pytest.mark.parametrize(
    ("scores", "list_", "says"),
    [
        (
            "a x 1\nb y 0\n",
            "1 a x\n0 b x\n0 a y\n",
            "scores.txt: 2 of 3 trials of .*trials.txt have no score, first: b x",
        ),
        ("a x 1\nb y 0\n", "1 a x\n0 c x\n", "scores.txt: has no scores of some listed utterances.*: c"),
        ("1 1\n0 0\n", "1 a x\n0 b x\n", "scores.txt: its lines name no utterances"),
        ("a x 1\nb y 0\n", "1 a x\n", "one class only"),
        ("1 a x 1\n0 b y 0\n", "a x\nb y\n", "trials.txt: the list has no labels, but error rates need them"),
    ],
)
def test_lists_that_do_not_fit_are_errors(tmp_path: Path, scores: str, list_: str, says: str) -> None:
    scored = read_scores(write(tmp_path, scores))
    with pytest.raises(TrialError, match=says):
        select_trials(scored, write(tmp_path, list_, "trials.txt"))


def test_files_are_of_the_same_trials_line_by_line(tmp_path: Path) -> None:
    first = read_scores(write(tmp_path, "1 a x 1\n0 b x 0\n", "1"))
    check_same_trials(first, read_scores(write(tmp_path, "1 a x 3\n0 b x 2\n", "2")))
    for other in ("0 b x 0\n1 a x 1\n", "1 a x 1\n1 b x 0\n", "1 a x 1\n", "1 1\n0 0\n", "1 a x 1\n0 b z 0\n"):
        with pytest.raises(TrialError, match="not scores of the same trials"):
            check_same_trials(first, read_scores(write(tmp_path, other, "2")))


def test_sides_and_groups(tmp_path: Path) -> None:
    scored = read_scores(write(tmp_path, FORMS["enrolment test score"]))
    path = write(tmp_path, "a f\nb m\nx m\ny f\n", "groups.txt")
    kinds, numbers = label_sides(scored, read_labels(path), path)
    assert kinds == ["f", "m"]
    assert [side.tolist() for side in numbers] == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert group_trials(kinds, numbers).tolist() == ["f/m", "m", "f/m", "f"]
    with pytest.raises(UnknownUtteranceError, match=r"has no entry for 'y', which .*scores.txt names"):
        label_sides(scored, {"a": "f", "b": "m", "x": "m", "y": None}, path)
    with pytest.raises(TrialError, match="name no utterances"):
        label_sides(read_scores(write(tmp_path, "1 1\n0 0\n")), {}, path)


@pytest.mark.parametrize(
    ("text", "says"), [("", "no labels"), ("a\n", "l.txt:1: expected"), ("a 1\na 2\n", "l.txt:2: a already")]
)
def test_labels_that_are_none_are_errors(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TrialError, match=says):
        read_labels(write(tmp_path, text, "l.txt"))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_may_have_been_cut_within_a_score_is_warned_of(tmp_path: Path, form: str) -> None:
    whole = FORMS[form].rstrip("\n") + "\n"
    path = write(tmp_path, whole)
    assert read_scores(path).warning is None
    silent = []
    for end in range(len(whole) - 12, len(whole)):  # within the last line
        path.write_text(whole[:end])
        try:
            if read_scores(path).warning is None:
                silent.append(whole[:end])
        except TrialError:
            continue
    assert all(text.endswith("\n") for text in silent)
    path.write_text(whole.rstrip("\n"))
    says = f"{path}: does not end with a newline, so its last score may be cut off."
    if form == "table":  # `seed score` wrote it, always to its end
        with pytest.raises(TrialError, match=re.escape(says)):
            read_scores(path)
    else:
        assert read_scores(path).warning == says
