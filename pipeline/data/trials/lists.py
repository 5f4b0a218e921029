"""Trial lists read into row numbers, their counts and repeats, and lists by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.missing_ids import MissingIds
from pipeline.data.trials.parser import EXPECTED, parse_trials
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError


@dataclass(frozen=True)
class TrialList:
    """The trials of a list, its format, and the number of trials that repeat an earlier one."""

    trials: Trials
    format: str
    duplicates: int
    contradictions: int
    """Number of pairs that are listed both as target and as non-target."""

    @property
    def counts(self) -> "TrialCounts":
        """The numbers of trials and targets."""
        target = self.trials.target
        return TrialCounts(len(self.trials), None if target is None else int(target.sum()))


@dataclass(frozen=True)
class TrialCounts:
    """Number of trials of a list, and of targets; None for an unlabeled list."""

    trials: int
    targets: int | None


def read_list(path: Path, enrol: Sequence[str], test: Sequence[str], where: str = "in the store") -> TrialList:
    """Read and check a whole trial list, and look up the ids of both sides.

    Args:
        path: a list with lines `1|0 enrolment test` (VoxCeleb) or `enrolment test target|nontarget` (Kaldi), a table
            with a header such as `modelid,segmentid,targettype` (NIST; comma, semicolon or tab), or `enrolment test`
            without labels.
        enrol: ids of the enrolment side in row order: utterances, or models.
        test: utterance ids of the test side in row order.
        where: source of these ids, for messages.

    Raises:
        TrialError: a malformed line, a label of another format, or one class only.
        UnknownUtteranceError: unknown ids on either side.
    """
    rows: tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]] = ([], [])
    labels: list[NDArray[np.bool_]] = []
    format = ""
    for name, sides, label in read_rows(path, enrol, test, where):
        format = name
        for blocks, block in zip(rows, sides, strict=True):
            blocks.append(block)
        if label is not None:
            labels.append(label)
    left, right = (np.concatenate(blocks, dtype=np.int64) for blocks in rows)
    target = np.concatenate(labels) if labels else None
    if target is not None and (target.all() or not target.any()):
        raise TrialError(f"{path}: {len(target)} trials of one class only; error rates need targets and non-targets.")
    return TrialList(Trials(left, right, target), format, *count_repeats(encode_trials(left, right, target, len(test))))


def read_rows(
    path: Path, enrol: Sequence[str], test: Sequence[str], where: str
) -> Iterator[tuple[str, tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.bool_] | None]]:
    """Yield the format of a list, and for each block of lines the rows of both sides and the labels, see `read_list`.

    After an unknown id nothing more is yielded, but the rest of the list is read so that the error can count them.

    Raises:
        TrialError: a malformed line, a label of another format, or no trials.
        UnknownUtteranceError: unknown ids on either side.
    """
    sides = tuple({name.encode(): row for row, name in enumerate(names)} for names in (enrol, test))
    unknown = MissingIds(path, "trials", where)
    empty, all_known = True, True
    for block in parse_trials(path):
        empty, columns = False, (block.enrol, block.test)
        left, right = (
            np.fromiter(map(known.get, column, repeat(-1)), np.int32, len(column))
            for known, column in zip(sides, columns, strict=True)
        )
        unknown.note(block.lines, list(zip(columns, (left, right), strict=True)))
        all_known = all_known and min(left.min(), right.min()) >= 0
        if all_known:
            yield block.format.name, (left, right), block.target
    unknown.check(enrol, test)
    if empty:
        raise TrialError(f"{path}: lists no trials. Lines are {EXPECTED}.")


def count_trials(path: Path) -> TrialCounts:
    """Count the trials of a list without looking up its ids.

    Raises:
        TrialError: a malformed line.
    """
    trials, targets, labeled = 0, 0, True
    for block in parse_trials(path):
        trials += len(block.lines)
        targets += 0 if block.target is None else int(block.target.sum())
        labeled = block.target is not None
    return TrialCounts(trials, targets if labeled else None)


def encode_trials(
    enrol: NDArray[np.integer], test: NDArray[np.integer], target: NDArray[np.bool_] | None, tests: int
) -> NDArray[np.int64]:
    """Return a number [M] for the pair and label of each trial; `tests` is the size of the test side."""
    codes = enrol.astype(np.int64)
    codes *= tests
    codes += test
    codes *= 2
    if target is not None:
        codes += target
    return codes


def count_repeats(codes: NDArray[np.int64]) -> tuple[int, int]:
    """Count trials that repeat an earlier one, and pairs with both labels; overwrites `codes` [M]."""
    codes.sort()  # many times faster than np.unique
    labeled = codes[1:] != codes[:-1]
    codes >>= 1
    pairs = codes[1:] != codes[:-1]
    return int((~pairs).sum()), int((labeled & ~pairs).sum())


def find_lists(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name without suffix."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name.split(".")[0]: path for path in paths}


def read_lists(paths: Mapping[str, Path], ids: Sequence[str]) -> dict[str, TrialList]:
    """Read trial lists by name, and look up the utterances of stores.

    Raises:
        TrialError: a list is malformed, has no labels, or names unknown utterances.
    """
    lists = {name: read_list(path, ids, ids) for name, path in paths.items()}
    for name, trials in lists.items():
        if trials.trials.target is None:
            raise TrialError(f"{paths[name]}: the list has no labels. Error rates need them: add labels, or remove it.")
    return lists
