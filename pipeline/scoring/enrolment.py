"""Enrolment models: speakers who are enrolled with several utterances."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.data.trials.formats import detect_table, split_line
from pipeline.data.trials.missing_ids import MissingIds
from pipeline.data.trials.parser import read_line_blocks
from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.scoring.comparison import ScoreFunction
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.array_types import BoolArray, Float32Array, IntArray


@dataclass(frozen=True)
class EnrolmentModels:
    """Models by name, and the rows of their utterances, model by model."""

    names: tuple[str, ...]
    rows: IntArray
    """Rows of a store [R]."""
    starts: IntArray
    """Index of the first entry of each model in `rows` [M]."""

    def usable_mask(self, ok: BoolArray) -> BoolArray:
        """Return a mask of the models [M] that have an encoded utterance, given a mask of encoded rows [N]."""
        return np.logical_or.reduceat(ok[self.rows], self.starts)

    def find_failed(self, store: EmbeddingStore) -> tuple[str, ...]:
        """Return the ids of the models' utterances that failed in their store, in row order."""
        rows = np.unique(self.rows)
        return tuple(store.utterances[row] for row in rows[store.status[rows] != OK])

    def select_rows(self, models: IntArray) -> IntArray:
        """Return the rows of the utterances of some models."""
        chosen = np.zeros(len(self.starts), dtype=np.bool_)
        chosen[models] = True
        return self.rows[np.repeat(chosen, np.diff(self.starts, append=len(self.rows)))]


Pooling = Callable[[Float32Array, EnrolmentModels], Float32Array]
"""A function that makes one unit vector for each model [M, D] from all utterances' [N, D]; NaN where these failed."""

_BLOCK = 4096  # trials of models scored at a time; each becomes as many trials as its model has utterances


def average_models(vectors: Float32Array, models: EnrolmentModels) -> Float32Array:
    """Return the mean of each model's unit vectors at unit length, without failed ones; NaN if all failed."""
    sums = np.add.reduceat(np.nan_to_num(vectors[models.rows], nan=0.0), models.starts)
    sums[~models.usable_mask(np.asarray(np.isfinite(vectors).all(axis=1)))] = np.nan
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)


def average_scores(models: EnrolmentModels, ok: BoolArray, score: ScoreFunction) -> ScoreFunction:
    """Return a function that scores a trial of a model by the mean score of its encoded utterances (`ok` [N]).

    All utterances of a store have the same number of crops, so the mean over utterances is also the mean over all crops
    of the model.
    """
    kept = ok[models.rows]
    members, counts = models.rows[kept], np.add.reduceat(kept, models.starts, dtype=np.int64)
    first = np.cumsum(counts) - counts

    def score_models(enrol: Float32Array, test: Float32Array, trials: Trials) -> Float32Array:
        result = np.empty(len(trials), dtype=np.float32)
        for start in range(0, len(trials), _BLOCK):
            model, tested = trials.enrol[start : start + _BLOCK], trials.test[start : start + _BLOCK]
            sizes = counts[model]
            begins = np.cumsum(sizes) - sizes
            rows = members[np.arange(sizes.sum()) + np.repeat(first[model] - begins, sizes)]
            scores = score(enrol, test, Trials(rows, np.repeat(tested, sizes), None))
            result[start : start + _BLOCK] = np.add.reduceat(scores, begins, dtype=np.float64) / sizes
        return result

    return score_models


def read_models(path: Path, utterances: Sequence[str]) -> EnrolmentModels:
    """Read the models of a list, plain or gzip, for the utterance ids of a store.

    Its lines are `model utterance1 utterance2 …` (Kaldi's spk2utt); or it is a table with a header such as `modelid
    segmentid` (NIST), with one utterance a line.

    Raises:
        TrialError: a model has no utterances, is listed twice without a header, or names an utterance twice.
        UnknownUtteranceError: the store does not hold all utterances.
    """
    known = {name.encode(): row for row, name in enumerate(utterances)}
    unknown = MissingIds(path, "models", "in the store")
    members: dict[bytes, list[bytes]] = {}
    for number, model, named in _read_members(path):
        of_model = members.setdefault(model, [])
        of_model += named
        if len(set(of_model)) < len(of_model):
            raise TrialError(f"{path}:{number}: model {_text(model)!r} names an utterance twice. Name each once.")
        unknown.note_line(number, named, np.array([known.get(name, -1) for name in named], dtype=np.int32))
    unknown.check(utterances)
    if not members:
        raise TrialError(f"{path}: lists no models. Lines are `model utterance1 utterance2 …`.")
    rows = np.array([known[name] for names in members.values() for name in names], dtype=np.int64)
    counts = np.array([len(names) for names in members.values()])
    return EnrolmentModels(tuple(map(_text, members)), rows, np.cumsum(counts) - counts)


def _read_members(path: Path) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Yield the number of each line that is not blank, its model and its utterances."""
    lines = ((number, line) for number, line in enumerate(_read_lines(path), start=1) if line.strip())
    first = next(lines, None)
    table = detect_table(first[1]) if first else None
    if table:
        for number, line in lines:
            fields = split_line(line, table.delimiter)
            if len(fields) != table.width:
                raise TrialError(f"{path}:{number}: {len(fields)} fields where the header has {table.width}.")
            yield number, fields[table.enrol], [fields[table.test]]
        return
    seen: dict[bytes, int] = {}
    for number, line in chain([first] if first else [], lines):
        model, *members = line.split()
        if not members:
            says = "has no utterances. Lines are `model utterance1 …`."
            raise TrialError(f"{path}:{number}: model {_text(model)!r} {says}")
        if model in seen:
            says = f"is already on line {seen[model]}. Join the lines, or begin with a header `modelid segmentid`."
            raise TrialError(f"{path}:{number}: model {_text(model)!r} {says}")
        seen[model] = number
        yield number, model, members


def _read_lines(path: Path) -> Iterator[bytes]:
    return (line for block in read_line_blocks(path) for line in block.splitlines())


def _text(model: bytes) -> str:
    return model.decode("utf-8", "backslashreplace")
