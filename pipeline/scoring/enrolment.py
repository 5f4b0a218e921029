"""Enrolment models: speakers who enrol with several utterances, and what stands for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.missing_ids import MissingIds
from pipeline.data.trials.parser import read_line_blocks
from pipeline.data.trials.table import Index, Trials
from pipeline.errors import TrialError


@dataclass(frozen=True)
class EnrolmentModels:
    """Models by name, and the rows of their utterances one model after another."""

    names: tuple[str, ...]
    rows: Index
    """Rows of a store [R]."""
    starts: Index
    """Where in `rows` each model's begin [M]."""

    def usable(self, ok: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which models [M] have an utterance that was encoded, given which rows [N] were."""
        return np.logical_or.reduceat(ok[self.rows], self.starts)


Pooling = Callable[[NDArray[np.float32], EnrolmentModels], NDArray[np.float32]]
"""Makes one unit vector a model [M, D] out of those of all utterances [N, D]; utterances that failed are NaN."""

Score = Callable[[NDArray[np.float32], NDArray[np.float32], Trials], NDArray[np.float32]]
"""The score of every trial, from what stands for the utterances of both sides."""

_BLOCK = 4096  # trials of models at a time: there are as many of utterances as models have, for each


def mean_of_units(vectors: NDArray[np.float32], models: EnrolmentModels) -> NDArray[np.float32]:
    """Return the mean of each model's unit vectors, at unit length; what failed is left out, NaN if all did."""
    sums = np.add.reduceat(np.nan_to_num(vectors[models.rows], nan=0.0), models.starts)
    sums[~models.usable(np.asarray(np.isfinite(vectors).all(axis=1)))] = np.nan
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)


def mean_over(models: EnrolmentModels, ok: NDArray[np.bool_], score: Score) -> Score:
    """Return what gives a trial of a model the mean score of its utterances, those that failed [N] left out.

    As all utterances of a store have as many crops, the mean over utterances is the mean over all crops of the model.
    """
    kept = ok[models.rows]
    members, counts = models.rows[kept], np.add.reduceat(kept, models.starts, dtype=np.int64)
    first = np.cumsum(counts) - counts

    def scores(enrol: NDArray[np.float32], test: NDArray[np.float32], trials: Trials) -> NDArray[np.float32]:
        result = np.empty(len(trials), dtype=np.float32)
        for start in range(0, len(trials), _BLOCK):
            model, tested = trials.enrol[start : start + _BLOCK], trials.test[start : start + _BLOCK]
            many = counts[model]
            begins = np.cumsum(many) - many
            rows = members[np.arange(many.sum()) + np.repeat(first[model] - begins, many)]
            each = score(enrol, test, Trials(rows, np.repeat(tested, many), None))
            result[start : start + _BLOCK] = np.add.reduceat(each, begins, dtype=np.float64) / many
        return result

    return scores


def read_models(path: Path, utterances: Sequence[str]) -> EnrolmentModels:
    """Read lines `model utterance1 utterance2 …` (Kaldi's spk2utt), gzip or not, against the ids of a store.

    Raises:
        TrialError: a model without utterances, one that is listed twice, or an utterance twice in one.
        UnknownUtteranceError: utterances that the store does not hold.
    """
    known = {name.encode(): row for row, name in enumerate(utterances)}
    unknown = MissingIds(path, "models", "in the store")
    seen: dict[str, int] = {}
    rows: list[int] = []
    starts: list[int] = []
    lines = (line for block in read_line_blocks(path) for line in block.splitlines())
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        first, *members = line.split()
        model = first.decode("utf-8", "backslashreplace")
        if not members:
            raise TrialError(f"{path}:{number}: model {model!r} has no utterances. Lines are `model utterance1 …`.")
        if model in seen:
            raise TrialError(f"{path}:{number}: model {model!r} stands on line {seen[model]} already. Join the lines.")
        if len(set(members)) < len(members):
            raise TrialError(f"{path}:{number}: model {model!r} names an utterance twice. Name each once.")
        seen[model] = number
        found = np.array([known.get(member, -1) for member in members], dtype=np.int32)
        unknown.note_line(number, members, found)
        starts.append(len(rows))
        rows.extend(found.tolist())
    unknown.check(utterances)
    if not seen:
        raise TrialError(f"{path}: lists no models. Lines are `model utterance1 utterance2 …`.")
    return EnrolmentModels(tuple(seen), np.array(rows, dtype=np.int64), np.array(starts, dtype=np.int64))
