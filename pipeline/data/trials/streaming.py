"""Trial lists too long for memory: read once into a file of row numbers, and from there block by block."""

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
"""Trials scored and written at a time."""

_RANGE = 1 << 24  # trials among which repeated ones are looked for at a time: 8 bytes each
_RECORD = np.dtype([("enrol", "<i4"), ("test", "<i4"), ("target", "?")])


@dataclass(frozen=True)
class SpooledTrials:
    """A trial list on disk, every line of it checked: a record of 9 bytes a trial."""

    format: str
    counts: TrialCounts
    duplicates: int
    contradictions: int
    """See `trial_lists.TrialList`."""
    file: BinaryIO

    def blocks(self, size: int = BLOCK) -> Iterator[Trials]:
        """Yield the trials in the order of the list, so many at a time."""
        for part in _read_records(self.file, size):
            labels = None if self.counts.targets is None else part["target"].copy()
            yield Trials(part["enrol"].astype(np.int64), part["test"].astype(np.int64), labels)


@contextmanager
def spool_trials(
    path: Path,
    enrol: Sequence[str],
    test: Sequence[str],
    where: str = "in the store",
    progress: Callable[[int], None] | None = None,
) -> Iterator[SpooledTrials]:
    """Read a trial list as `trial_lists.read_list` does, and yield it as a temporary file, which then goes.

    In memory is a block of lines, and what finding repeated trials takes: 8 bytes for each of 17 million at a time.

    Args:
        path: the list.
        enrol: ids of the enrolment side in row order: utterances, or models.
        test: utterance ids of the test side in row order.
        where: these ids are from, for messages.
        progress: called with the number of trials of each block as it is read.

    Raises:
        TrialError, UnknownUtteranceError: see `trial_lists.read_list`.
    """
    with tempfile.TemporaryFile(prefix="seed-trials-") as file:
        form, trials, targets, labeled = "", 0, 0, False
        by_enrol = np.zeros(len(enrol), dtype=np.int64)
        for name, rows, label in read_rows(path, enrol, test, where):
            form = name
            part = np.zeros(len(rows[0]), dtype=_RECORD)
            part["enrol"], part["test"] = rows
            labeled = label is not None
            if label is not None:
                part["target"] = label
            part.tofile(file)
            trials, targets = trials + len(part), targets + int(part["target"].sum())
            by_enrol += np.bincount(rows[0], minlength=len(enrol))
            if progress:
                progress(len(part))
        if labeled and targets in (0, trials):
            raise TrialError(f"{path}: {trials} trials of one class only; error rates need targets and non-targets.")
        counts = TrialCounts(trials, targets if labeled else None)
        yield SpooledTrials(form, counts, *_count_repeats(file, by_enrol, len(test), labeled), file)


def _read_records(file: BinaryIO, size: int) -> Iterator[NDArray[np.void]]:
    file.seek(0)
    while len(part := np.fromfile(file, dtype=_RECORD, count=size)):
        yield part


def _count_repeats(file: BinaryIO, by_enrol: NDArray[np.int64], tests: int, labeled: bool) -> tuple[int, int]:
    """Count repeated trials and contradictions, of as many enrolments at a time as have `_RANGE` trials together."""
    ranges = np.cumsum(by_enrol) // _RANGE
    duplicates = contradictions = 0
    for number in np.unique(ranges[by_enrol > 0]):
        chosen = ranges == number
        codes, filled = np.empty(by_enrol[chosen].sum(), dtype=np.int64), 0
        for part in _read_records(file, BLOCK):
            part = part[chosen[part["enrol"]]]
            found = encode_trials(part["enrol"], part["test"], part["target"] if labeled else None, tests)
            codes[filled : filled + len(found)] = found
            filled += len(found)
        more = count_repeats(codes)
        duplicates, contradictions = duplicates + more[0], contradictions + more[1]
    return duplicates, contradictions
