import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.trials import streaming as trial_spool
from pipeline.data.trials.lists import read_list
from pipeline.data.trials.streaming import spool_trials
from pipeline.errors import TrialError, UnknownUtteranceError

IDS = tuple(f"u{row}" for row in range(40))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("span", [1, 50, 1 << 24])
def test_a_spool_holds_what_is_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labeled: bool, span: int
) -> None:
    rows = np.random.default_rng(0).integers([[2], [40], [40]], size=(3, 2000))  # of 1,600 pairs, so many are repeated
    lines = (f"{label} {IDS[a]} {IDS[b]}\n" if labeled else f"{IDS[a]} {IDS[b]}\n" for label, a, b in rows.T)
    path = write(tmp_path / "t.txt", "".join(lines))
    whole = read_list(path, IDS, IDS[::-1])
    monkeypatch.setattr(trial_spool, "_RANGE", span)
    read: list[int] = []
    with spool_trials(path, IDS, IDS[::-1], progress=read.append) as spool:
        for _ in range(2):  # it can be gone through again
            parts = list(spool.blocks(300))
            assert [len(part) for part in parts] == [300] * 6 + [200]
            for side in ("enrol", "test", "target"):
                found = [getattr(part, side) for part in parts]
                if side == "target" and not labeled:
                    assert found == [None] * 7
                else:
                    np.testing.assert_array_equal(np.concatenate(found), getattr(whole.trials, side))
    assert sum(read) == 2000
    assert (spool.format, spool.counts) == (whole.format, whole.counts)
    assert (spool.duplicates, spool.contradictions) == (whole.duplicates, whole.contradictions)
    assert spool.duplicates > 400


def test_a_spool_goes_with_its_block(tmp_path: Path) -> None:
    with spool_trials(write(tmp_path / "t.txt", "u0 u1\n"), IDS, IDS) as spool:
        pass
    assert spool.file.closed


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("1 u0 u1\n0 u0 x\n0 y u1\n", UnknownUtteranceError, "2 of 3 trials name .* x .*t.txt:2.*y .*t.txt:3"),
        ("1 u0 u1\n1 u0 u2\n", TrialError, "2 trials of one class only"),
        ("1 u0 u1\n0 u0\n", TrialError, "t.txt:2: expected"),
        ("\n", TrialError, "lists no trials"),
    ],
)
def test_what_is_no_list_is_no_spool(tmp_path: Path, text: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says), spool_trials(write(tmp_path / "t.txt", text), IDS, IDS):
        pass


def test_memory_does_not_go_by_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.trials.parser._BLOCK", 1 << 14)
    monkeypatch.setattr(trial_spool, "_RANGE", 10_000)
    draws = np.random.default_rng(0).integers(40, size=(2, 200_000)).tolist()
    path = write(tmp_path / "t.txt", "".join(f"{IDS[a]} {IDS[b]}\n" for a, b in zip(*draws, strict=True)))
    tracemalloc.start()
    with spool_trials(path, IDS, IDS) as spool:
        count = sum(len(part) for part in spool.blocks(1000))
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200_000
    assert peak < 200_000 * 8
