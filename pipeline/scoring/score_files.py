"""Scores from elsewhere: text files with a score a line."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.lists import read_list
from pipeline.data.trials.table import Index
from pipeline.errors import TrialError, UnknownUtteranceError
from pipeline.metrics import Speakers

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}

TABLE = ["label", "enrolment", "test", "score"]
"""Header of the CSV that `seed score` writes unless another form is asked for; its labels may be empty."""

FORMS = {2: ["score", "label"], 3: ["enrolment", "test", "score"], 4: TABLE}
"""What the lines of a file hold, by how many fields they have. A label is 1|0 or target|nontarget."""


@dataclass(frozen=True)
class Scored:
    """Trials with scores, in the order of a file."""

    path: Path
    scores: NDArray[np.float64]
    """[M]."""
    target: NDArray[np.bool_] | None
    """[M]; None if the file has no labels."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Enrolment and test ids, each once; empty if the file names no utterances."""
    pairs: tuple[Index, Index]
    """Places [M] of each trial's ids in `names`; empty likewise."""

    @property
    def named(self) -> bool:
        """Whether the file names utterances."""
        return bool(self.names[0])


def read_scores(path: Path) -> Scored:
    """Read lines of one of `FORMS`, or the CSV of `seed score`.

    Raises:
        TrialError: it is missing, empty or of another form; a score is no finite number; a pair stands there twice.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise TrialError(f"{path}: holds no scores.")
    form = FORMS.get(len(first[1]))
    if form is None:
        forms = ", ".join(f"`{' '.join(form)}`" for form in FORMS.values())
        raise TrialError(f"{path}:{first[0]}: expected {forms} or `{','.join(TABLE)}`, found {_shown(first[1])}.")
    labels: list[bool | None] = []
    scores: list[float] = []
    numbers: list[int] = []
    known: tuple[dict[str, int], dict[str, int]] = ({}, {})
    places: tuple[list[int], list[int]] = ([], [])
    for number, fields in lines if first[1] == TABLE else chain([first], lines):
        row = dict(zip(form, fields, strict=False))
        score = _number(row.get("score", ""))
        label = LABELS.get(row["label"]) if row.get("label") else None
        if len(fields) != len(form) or score is None or (row.get("label") and label is None):
            wanted = "" if score is not None else " A score is a finite number."
            raise TrialError(f"{path}:{number}: expected `{' '.join(form)}`, found {_shown(fields)}.{wanted}")
        numbers.append(number)
        scores.append(score)
        labels.append(label)
        if len(form) > 2:
            for side, ids, key in zip(places, known, ("enrolment", "test"), strict=True):
                side.append(ids.setdefault(row[key], len(ids)))
    if not scores:
        raise TrialError(f"{path}: holds no scores.")
    bare = labels.count(None)
    if 0 < bare < len(labels):
        raise TrialError(f"{path}:{numbers[labels.index(None)]}: has no label, though other lines have.")
    names = tuple(known[0]), tuple(known[1])
    pairs = np.array(places[0], dtype=np.int64), np.array(places[1], dtype=np.int64)
    _check_once(path, pairs[0] * len(names[1]) + pairs[1], numbers)
    return Scored(path, np.array(scores), None if bare else np.array(labels, dtype=np.bool_), names, pairs)


def on_trials(scored: Scored, trials: Path) -> Scored:
    """Return the scores of a trial list, with its labels and in its order; scores of other pairs are left out.

    Raises:
        TrialError: the list is malformed or has no labels, or some of its trials have no score.
    """
    if not scored.named:
        raise TrialError(f"{scored.path}: its lines name no utterances, so no trial list can be applied to them.")
    try:
        listed = read_list(trials, *scored.names).trials
    except UnknownUtteranceError as error:
        raise TrialError(f"{scored.path}: has no scores of some of the utterances listed. {error}") from error
    if listed.target is None:
        raise TrialError(f"{trials}: the list has no labels, and error rates need them. Give one that has.")
    codes = scored.pairs[0] * len(scored.names[1]) + scored.pairs[1]
    wanted = listed.enrol * len(scored.names[1]) + listed.test
    order = np.argsort(codes)
    found = order[np.minimum(np.searchsorted(codes, wanted, sorter=order), len(codes) - 1)]
    absent = np.flatnonzero(codes[found] != wanted)
    if len(absent):
        enrol, test = scored.names[0][listed.enrol[absent[0]]], scored.names[1][listed.test[absent[0]]]
        count = f"{len(absent):,} of {len(wanted):,} trials"
        raise TrialError(f"{scored.path}: {count} of {trials} have no score, first: {enrol} {test}.")
    return replace(scored, scores=scored.scores[found], target=listed.target, pairs=(listed.enrol, listed.test))


def labels_of(scored: Scored) -> NDArray[np.bool_]:
    """Return the labels [M].

    Raises:
        TrialError: there are none.
    """
    if scored.target is None:
        raise TrialError(f"{scored.path}: its lines have no labels. Give the trial list that has them with --trials.")
    return scored.target


def check_same_trials(first: Scored, second: Scored) -> None:
    """Check that two files score the same trials, with the same labels, in the same order.

    Raises:
        TrialError: they do not.
    """
    same = len(first.scores) == len(second.scores) and first.named == second.named
    if not same or _ids(first) != _ids(second) or (labels_of(first) != labels_of(second)).any():
        raise TrialError(
            f"{first.path} and {second.path} are not scores of the same trials, line by line. Give the trial list that"
            " both are to be compared on with --trials."
        )


def read_labels(path: Path) -> dict[str, str]:
    """Read lines `utterance label`: who speaks, or the group an utterance belongs to.

    Raises:
        TrialError: it is missing, empty or of another form; an utterance stands there twice.
    """
    labels: dict[str, str] = {}
    for number, fields in _lines(path):
        if len(fields) != 2:
            raise TrialError(f"{path}:{number}: expected `utterance label`, found {_shown(fields)}.")
        if fields[0] in labels:
            raise TrialError(f"{path}:{number}: {fields[0]} stands there twice.")
        labels[fields[0]] = fields[1]
    if not labels:
        raise TrialError(f"{path}: holds no labels.")
    return labels


def sides(scored: Scored, labels: Mapping[str, str | None], where: Path) -> tuple[list[str], Speakers]:
    """Return what the utterances of both sides are labelled, each label once and sorted, and as numbers [M] of these.

    Raises:
        TrialError: the scores name no utterances, or one of them has no label.
    """
    if not scored.named:
        raise TrialError(f"{scored.path}: its lines name no utterances, so {where} cannot say anything of them.")
    found: tuple[list[str], list[str]] = ([], [])
    for names, side in zip(scored.names, found, strict=True):
        for name in names:
            label = labels.get(name)
            if label is None:
                raise UnknownUtteranceError(f"{where}: says nothing of {name!r}, which {scored.path} names. Add it.")
            side.append(label)
    kinds = sorted({*found[0], *found[1]})
    place = {label: number for number, label in enumerate(kinds)}
    enrol, test = (
        np.array([place[label] for label in side], dtype=np.int64)[rows]
        for side, rows in zip(found, scored.pairs, strict=True)
    )
    return kinds, (enrol, test)


def _ids(scored: Scored) -> list[tuple[str, str]]:
    enrol, test = scored.names
    return [(enrol[left], test[right]) for left, right in zip(*scored.pairs, strict=True)]


def _check_once(path: Path, codes: Index, numbers: Sequence[int]) -> None:
    order = np.argsort(codes, kind="stable")
    again = order[1:][np.diff(codes[order]) == 0]
    if len(again):
        raise TrialError(f"{path}:{numbers[int(again.min())]}: the pair stands there already. Keep one of its scores.")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of lines that are not blank: fields of a CSV if it begins as `TABLE` does."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if first.strip().split(",") == TABLE:
                reader = csv.reader(file)
                yield 1, TABLE
                yield from ((1 + reader.line_num, fields) for fields in reader if fields)
            else:
                lines = enumerate(chain([first], file), start=1)
                yield from ((number, line.split()) for number, line in lines if line.strip())
    except FileNotFoundError:
        raise TrialError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrialError(f"{path}: not a text in UTF-8 ({error}).") from error


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shown(fields: Sequence[str]) -> str:
    return repr(" ".join(fields)[:80])
