import numpy as np
import pytest

from pipeline.data.trials.left_out import LeftOut, describe_failed, failed_as_json, find_left_out, note_failed
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError

IDS = [f"u{n}" for n in range(20)]


def mask(*failed: int) -> np.ndarray:
    return ~np.isin(np.arange(20), failed)


def test_what_is_left_out_is_what_a_loop_finds() -> None:
    rng = np.random.default_rng(0)
    blocks = [Trials(*rng.integers(0, 20, (2, 50)), rng.random(50) < 0.3) for _ in range(3)]
    enrolled, tested = mask(3, 7), mask(7, 11, 19)
    lost = [
        (int(e), int(t), bool(label))
        for block in blocks
        for e, t, label in zip(block.enrol, block.test, block.target, strict=True)
        if not (enrolled[e] and tested[t])
    ]
    found = find_left_out(blocks, (enrolled, tested), (IDS, IDS))
    assert (found.trials, found.targets) == (len(lost), sum(label for *_, label in lost))
    named = {IDS[e] for e, *_ in lost if not enrolled[e]} | {IDS[t] for _, t, _ in lost if not tested[t]}
    assert set(found.utterances) == named
    assert len(found.utterances) == len(named)


def test_nothing_is_read_where_nothing_failed() -> None:
    assert find_left_out(iter(lambda: pytest.fail("read"), None), (mask(), mask()), (IDS, IDS)) == LeftOut(0, 0, ())


def test_a_failed_utterance_that_no_trial_names_costs_nothing() -> None:
    trials = Trials(np.array([0]), np.array([1]), np.array([True]))
    assert find_left_out([trials], (mask(5), mask(5)), (IDS, IDS)) == LeftOut(0, 0, ())


def test_it_is_described_in_words_and_in_json() -> None:
    assert LeftOut(1, 0, ("empty.wav",)).describe(3) == "1 of 3 trials left out: 1 utterance failed (empty.wav)"
    assert describe_failed(IDS) == "20 utterances failed (u0, u1, u2, u3, u4 and 15 more)"
    assert (
        note_failed(IDS[:2]) == "2 utterances failed (u0, u1) in a store; no trial of any system or condition uses them"
    )
    assert failed_as_json(IDS) == {"utterances": 20, "ids": IDS[:10], "file": "left_out.txt"}


@pytest.mark.parametrize(
    ("lost", "limit", "says"),
    [
        (
            LeftOut(1, 0, ("a",)),
            0,
            r"t: 1 of 6 trials left out: 1 utterance failed \(a\)\. Repair .* --max-left-out 1 ",
        ),
        (LeftOut(3, 2, ("a",)), 2, "3 of 6 trials left out"),
        (LeftOut(2, 2, ("a",)), None, r"t: no targets are left\. 2 of 6 trials left out: 1 utterance failed \(a\)"),
        (LeftOut(4, 0, ("a",)), 9, "t: no non-targets are left"),
    ],
)
def test_too_much_or_a_whole_class_is_an_error(lost: LeftOut, limit: int | None, says: str) -> None:
    with pytest.raises(TrialError, match=says):
        lost.check("t", 6, 2, limit)


@pytest.mark.parametrize(
    ("lost", "limit"), [(LeftOut(1, 0, ("a",)), 1), (LeftOut(4, 1, ("a",)), None), (LeftOut(0, 0, ()), 0)]
)
def test_less_is_none(lost: LeftOut, limit: int | None) -> None:
    lost.check("t", 6, 2, limit)


def test_an_unlabelled_list_needs_one_trial() -> None:
    LeftOut(5, 0, ("a",)).check("t", 6, None, None)
    with pytest.raises(TrialError, match="no trials are left"):
        LeftOut(6, 0, ("a",)).check("t", 6, None, None)
