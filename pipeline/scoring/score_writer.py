"""Writer of score files in one of three formats, one block of trials at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.score import ScoreFormat
from pipeline.data.trials.streaming import SpooledTrials
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.scoring.scorer import Scorer, no_trials
from pipeline.utils.array_types import BoolArray, Float32Array

FILES: dict[ScoreFormat, str] = {"csv": "scores.csv", "kaldi": "scores.txt", "txt": "scores.txt"}
"""The file of each `score.format`. Lines of `csv` are `label,enrolment,test,score` after a header, and the label may be
empty. Lines of `kaldi` are `enrolment test score`. Lines of `txt` are `label enrolment test score`, or without labels
those of `kaldi`."""

LineFormatter = Callable[[Trials, Float32Array], bytes]
"""A function that returns the lines of some trials and their scores [M]."""


def format_header(form: ScoreFormat) -> bytes:
    """Return the first line of a file, if the format has a header."""
    return b"label,enrolment,test,score\n" if form == "csv" else b""


def make_line_formatter(form: ScoreFormat, enrol: Sequence[str], test: Sequence[str]) -> LineFormatter:
    """Return a function that formats lines, given the ids of both sides' utterances or models in row order.

    Raises:
        TrialError: an id has spaces, and the format is not `csv`.
    """
    spell = _quote if form == "csv" else _require_no_spaces
    left, right = list(map(spell, enrol)), list(map(spell, test))

    def format_lines(trials: Trials, scores: Float32Array) -> bytes:
        ids = map(left.__getitem__, trials.enrol.tolist()), map(right.__getitem__, trials.test.tolist())
        columns: list[Any] = [*ids, scores.tolist()]
        template = ",%s,%s,%.6f\n" if form == "csv" else "%s %s %.6f\n"
        if trials.target is not None and form != "kaldi":
            template = f"%d{template}" if form == "csv" else f"%d {template}"
            columns.insert(0, trials.target.tolist())
        # One template for all lines is several times as fast as formatting line by line.
        fields: list[Any] = [None] * (len(columns) * len(scores))
        for place, column in enumerate(columns):
            fields[place :: len(columns)] = column
        return (template * len(scores) % tuple(fields)).encode()

    return format_lines


def _quote(name: str) -> str:
    """Return an id as a CSV field."""
    return '"' + name.replace('"', '""') + '"' if any(mark in name for mark in ',"\r\n') else name


def _require_no_spaces(name: str) -> str:
    if len(name.split()) != 1:
        raise TrialError(f"{name!r}: an id with spaces cannot be written in this format. Set score.format to csv.")
    return name


def score_to_file(
    spool: SpooledTrials,
    scorer: Scorer,
    names: tuple[Sequence[str], Sequence[str]],
    form: ScoreFormat,
    out: Path,
    progress: Callable[[int], None] | None = None,
) -> tuple[Float32Array, BoolArray | None, int]:
    """Score a list block by block, and write one line for each trial in order; trials of failed utterances are skipped.

    `names` are the ids of both sides in row order. `progress` is called with the number of trials after each block.

    Returns:
        Scores [M] and labels [M] of the written trials (no scores and None if the list has no labels), and the number
        of written trials.

    Raises:
        TrialError: no trials are left, a score is not finite, or an id cannot be written in this format.
    """
    format_lines, written = make_line_formatter(form, *names), 0
    labeled = spool.counts.targets is not None
    scores = np.empty(spool.counts.trials if labeled else 0, dtype=np.float32)
    target = np.empty(len(scores), dtype=np.bool_)
    with out.open("wb") as file:
        file.write(format_header(form))
        for block in spool.blocks():
            kept, values = scorer(block)
            file.write(format_lines(kept, values))
            if kept.target is not None:
                scores[written : written + len(kept)] = values
                target[written : written + len(kept)] = kept.target
            written += len(kept)
            if progress:
                progress(len(block))
    if written == 0:
        raise no_trials(scorer.path)
    return scores[:written], target[:written] if labeled else None, written
