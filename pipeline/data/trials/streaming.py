"""Trial lists that do not fit in memory: row numbers in a temporary file, read block by block."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.lists import TrialCounts, count_repeats, encode_trials, read_rows
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError

BLOCK = 1 << 16
"""Number of trials scored and written at a time."""

_RANGE = 1 << 24  # trials searched for repeats at a time, 8 bytes each
_RECORD = np.dtype([("enrol", "<i4"), ("test", "<i4"), ("target", "?")])


@dataclass(frozen=True)
class SpooledTrials:
    """A checked trial list on disk, with a record of 9 bytes for each trial."""

    format: str
    counts: TrialCounts
    duplicates: int
    contradictions: int
    """See `lists.TrialList`."""
    file: BinaryIO

    def blocks(self, size: int = BLOCK) -> Iterator[Trials]:
        """Yield the trials in the order of the list, at most `size` at a time."""
        for records in _read_records(self.file, size):
            labels = None if self.counts.targets is None else records["target"].copy()
            yield Trials(records["enrol"].astype(np.int64), records["test"].astype(np.int64), labels)


@contextmanager
def spool_trials(
    path: Path,
    enrol: Sequence[str],
    test: Sequence[str],
    where: str = "in the store",
    progress: Callable[[int], None] | None = None,
) -> Iterator[SpooledTrials]:
    """Read a trial list as `lists.read_list` does, into a temporary file that is deleted on exit.

    Memory holds one block of lines, and 8 bytes for each of 17 million trials while repeats are counted.

    `progress` is called with the number of trials of each block as it is read.

    Raises:
        TrialError, UnknownUtteranceError: see `lists.read_list`.
    """
    with tempfile.TemporaryFile(prefix="seed-trials-") as file:
        format, trials, targets, labeled = "", 0, 0, False
        by_enrol = np.zeros(len(enrol), dtype=np.int64)
        for name, rows, label in read_rows(path, enrol, test, where):
            format = name
            records = np.zeros(len(rows[0]), dtype=_RECORD)
            records["enrol"], records["test"] = rows
            labeled = label is not None
            if label is not None:
                records["target"] = label
            records.tofile(file)
            trials, targets = trials + len(records), targets + int(records["target"].sum())
            by_enrol += np.bincount(rows[0], minlength=len(enrol))
            if progress:
                progress(len(records))
        if labeled and targets in (0, trials):
            raise TrialError(f"{path}: {trials} trials of one class only; error rates need targets and non-targets.")
        counts = TrialCounts(trials, targets if labeled else None)
        yield SpooledTrials(format, counts, *_count_repeats(file, by_enrol, len(test), labeled), file)


def _read_records(file: BinaryIO, size: int) -> Iterator[NDArray[np.void]]:
    file.seek(0)
    while len(records := np.fromfile(file, dtype=_RECORD, count=size)):
        yield records


def _count_repeats(file: BinaryIO, by_enrol: NDArray[np.int64], tests: int, labeled: bool) -> tuple[int, int]:
    """Count repeated trials and contradictions, for ranges of enrolments with about `_RANGE` trials each."""
    ranges = np.cumsum(by_enrol) // _RANGE
    duplicates = contradictions = 0
    for number in np.unique(ranges[by_enrol > 0]):
        chosen = ranges == number
        codes, filled = np.empty(by_enrol[chosen].sum(), dtype=np.int64), 0
        for records in _read_records(file, BLOCK):
            records = records[chosen[records["enrol"]]]
            target = records["target"] if labeled else None
            codes[filled : filled + len(records)] = encode_trials(records["enrol"], records["test"], target, tests)
            filled += len(records)
        more = count_repeats(codes)
        duplicates, contradictions = duplicates + more[0], contradictions + more[1]
    return duplicates, contradictions
