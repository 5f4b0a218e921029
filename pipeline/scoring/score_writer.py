"""Score files as we write them: lines of one of three forms, a block of trials at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.streaming import SpooledTrials
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.scoring.scorer import Scorer, no_trials

Format = Literal["csv", "kaldi", "txt"]

FILES: dict[Format, str] = {"csv": "scores.csv", "kaldi": "scores.txt", "txt": "scores.txt"}
"""By the names of `score.format`: `label,enrolment,test,score` with a header, whose labels may be empty; `enrolment
test score`; `label enrolment test score`, which without labels is as `kaldi`."""

Lines = Callable[[Trials, NDArray[np.float32]], bytes]
"""The lines of some trials and their scores [M]."""


def header(form: Format) -> bytes:
    """Return what a file of that form begins with."""
    return b"label,enrolment,test,score\n" if form == "csv" else b""


def lines_of(form: Format, enrol: Sequence[str], test: Sequence[str]) -> Lines:
    """Return what makes the lines of a form, given the ids of both sides in row order: of utterances, or models.

    Raises:
        TrialError: an id holds white space, which only a CSV can.
    """
    spell = _quoted if form == "csv" else _unspaced
    left, right = list(map(spell, enrol)), list(map(spell, test))

    def lines(trials: Trials, scores: NDArray[np.float32]) -> bytes:
        columns: list[Any] = [
            map(left.__getitem__, trials.enrol.tolist()),
            map(right.__getitem__, trials.test.tolist()),
            scores.tolist(),
        ]
        template = ",%s,%s,%.6f\n" if form == "csv" else "%s %s %.6f\n"
        if trials.target is not None and form != "kaldi":
            template = f"%d{template}" if form == "csv" else f"%d {template}"
            columns.insert(0, trials.target.tolist())
        # One template for all lines, and all fields in turn: several times as fast as a line at a time.
        fields: list[Any] = [None] * (len(columns) * len(scores))
        for place, column in enumerate(columns):
            fields[place :: len(columns)] = column
        return (template * len(scores) % tuple(fields)).encode()

    return lines


def _quoted(name: str) -> str:
    """Return an id as a field of a CSV."""
    return '"' + name.replace('"', '""') + '"' if any(mark in name for mark in ',"\r\n') else name


def _unspaced(name: str) -> str:
    if len(name.split()) != 1:
        raise TrialError(f"{name!r}: an id with blanks cannot stand in such a score file. Set score.format to csv.")
    return name


def score_to_file(
    spool: SpooledTrials,
    scorer: Scorer,
    names: tuple[Sequence[str], Sequence[str]],
    form: Format,
    out: Path,
    progress: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None, int]:
    """Score a list block by block, and write a line a trial in its order; trials of failed utterances are left out.

    Args:
        spool: the list.
        scorer: of the stores it was read against.
        names: ids of both sides in row order.
        form: of the lines.
        out: the file to write.
        progress: called with the number of trials of each block as it is done.

    Returns:
        Scores [M] and labels [M] of the trials written, of an unlabeled list none and None; and how many these are.

    Raises:
        TrialError: no trials are left, a score is not finite, or an id cannot be written in this form.
    """
    lines, written = lines_of(form, *names), 0
    labeled = spool.counts.targets is not None
    scores = np.empty(spool.counts.trials if labeled else 0, dtype=np.float32)
    target = np.empty(len(scores), dtype=np.bool_)
    with out.open("wb") as file:
        file.write(header(form))
        for block in spool.blocks():
            kept, values = scorer(block)
            file.write(lines(kept, values))
            if kept.target is not None:
                scores[written : written + len(kept)] = values
                target[written : written + len(kept)] = kept.target
            written += len(kept)
            if progress:
                progress(len(block))
    if written == 0:
        raise no_trials(scorer.path)
    return scores[:written], target[:written] if labeled else None, written
