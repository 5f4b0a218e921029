import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.trials.table import make_all_pairs
from pipeline.errors import TrialError


@given(speakers=st.lists(st.sampled_from("abcd"), min_size=3, max_size=15).filter(lambda s: 1 < len(set(s)) < len(s)))
def test_all_pairs_are_all_ordered_pairs_of_different_utterances(speakers: list[str]) -> None:
    trials = make_all_pairs(speakers, limit=10_000, seed=0)
    count = len(speakers)
    expected = [(i, j, speakers[i] == speakers[j]) for i in range(count) for j in range(count) if i != j]
    assert list(zip(trials.enrol.tolist(), trials.test.tolist(), trials.target.tolist(), strict=True)) == expected


def test_above_the_limit_a_seeded_sample_is_drawn_that_keeps_the_targets() -> None:
    speakers = [f"s{n % 20}" for n in range(100)]
    trials = make_all_pairs(speakers, limit=2_000, seed=3)
    assert len(trials) == 2_000
    assert trials.target.sum() == 20 * 5 * 4
    pairs = set(zip(trials.enrol.tolist(), trials.test.tolist(), strict=True))
    assert len(pairs) == 2_000
    assert all(i != j for i, j in pairs)
    assert trials.target.tolist() == [
        speakers[i] == speakers[j] for i, j in zip(trials.enrol, trials.test, strict=True)
    ]
    again, other = make_all_pairs(speakers, 2_000, 3), make_all_pairs(speakers, 2_000, 4)
    np.testing.assert_array_equal(trials.enrol, again.enrol)
    assert not np.array_equal(trials.enrol, other.enrol)
    small = make_all_pairs(speakers, limit=100, seed=3)
    assert (len(small), small.target.sum()) == (100, 50)


@pytest.mark.parametrize(("speakers", "kind"), [(["a", "b", "c"], "no target"), (["a", "a"], "no non-target")])
def test_a_set_with_one_class_of_trials_is_an_error(speakers: list[str], kind: str) -> None:
    with pytest.raises(TrialError, match=kind):
        make_all_pairs(speakers, 100, 0)
