"""Trials that cannot be scored because utterances failed: their number, the utterances, and a limit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.utils.array_types import BoolArray

FILE = "left_out.txt"
"""The name of the file with the ids of all utterances that are left out, one a line, beside metrics.json."""

_IN_TEXT, _IN_JSON = 5, 10


@dataclass(frozen=True)
class LeftOut:
    """The trials of a list that cannot be scored."""

    trials: int
    """Number of trials left out."""
    targets: int
    """Number of targets among them; 0 for an unlabelled list."""
    utterances: tuple[str, ...]
    """Failed utterances that the list names, in row order; enrolment models without any encoded utterance, too."""

    def describe(self, listed: int) -> str:
        """Describe the loss in words, given the number of trials in the list."""
        return f"{self.trials:,} of {listed:,} trials left out: {describe_failed(self.utterances)}"

    def check(self, name: str, listed: int, targets: int | None, limit: int | None) -> None:
        """Check that a list can still be scored.

        Args:
            name: the list, for messages.
            listed: number of trials in the list.
            targets: number of targets in the list; None if it is unlabelled.
            limit: maximum number of trials left out; None: any.

        Raises:
            TrialError: more than `limit` trials are left out, or all trials of one class.
        """
        remedy = "Repair their recordings, see the lists of failures beside the stores"
        if limit is not None and self.trials > limit:
            raise TrialError(
                f"{name}: {self.describe(listed)}. {remedy}, or allow it: --max-left-out {self.trials}"
                " (score.max_left_out). Error rates on fewer trials are not comparable with others."
            )
        kept = {"trials": listed - self.trials}
        if targets is not None:
            kept = {"targets": targets - self.targets, "non-targets": listed - targets - self.trials + self.targets}
        for kind, count in kept.items():
            if count == 0:
                raise TrialError(f"{name}: no {kind} are left. {self.describe(listed)}. {remedy}.")


def find_left_out(
    blocks: Iterable[Trials], usable: tuple[BoolArray, BoolArray], names: tuple[Sequence[str], Sequence[str]]
) -> LeftOut:
    """Find the trials of a list that cannot be scored.

    `usable` are masks [N] of the enrolment and the test side, and `names` their ids, both in row order.
    """
    trials = targets = 0
    failed = [np.zeros(len(mask), dtype=np.bool_) for mask in usable]
    for block in blocks if not all(mask.all() for mask in usable) else ():
        lost = np.zeros(len(block), dtype=np.bool_)
        for mask, rows, marked in zip(usable, (block.enrol, block.test), failed, strict=True):
            bad = ~mask[rows]
            marked[rows[bad]] = True
            lost |= bad
        trials += int(lost.sum())
        targets += 0 if block.target is None else int(block.target[lost].sum())
    ids = (name for side, marked in zip(names, failed, strict=True) for name in _select(side, marked))
    return LeftOut(trials, targets, tuple(dict.fromkeys(ids)))


def describe_failed(ids: Sequence[str]) -> str:
    """Describe utterances that failed, in words: their number and the first ones."""
    more = f" and {len(ids) - _IN_TEXT:,} more" if len(ids) > _IN_TEXT else ""
    return f"{len(ids):,} utterance{'' if len(ids) == 1 else 's'} failed ({', '.join(ids[:_IN_TEXT])}{more})"


def note_failed(ids: Sequence[str]) -> str:
    """Return a warning about utterances that failed in a store, and are therefore in no trial of any condition."""
    return f"{describe_failed(ids)} in a store; no trial of any system or condition uses them"


def failed_as_json(ids: Sequence[str]) -> dict[str, Any]:
    """Return JSON values of utterances that failed: their number, the first ten, and the file that lists all."""
    return {"utterances": len(ids), "ids": list(ids[:_IN_JSON]), "file": FILE}


def _select(names: Sequence[str], mask: BoolArray) -> list[str]:
    return [names[row] for row in np.flatnonzero(mask).tolist()]
