"""Score files as we write them: lines of one of three forms, a block of trials at a time."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrialError
from pipeline.trials import Trials

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
