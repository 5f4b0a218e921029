"""Reader of score files: text with one score per line, from this or any other program."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.data.trials.lists import read_list
from pipeline.data.trials.parser import UTF_16
from pipeline.errors import TrialError, UnknownUtteranceError
from pipeline.metrics import Speakers
from pipeline.utils.array_types import BoolArray, Float64Array, IntArray
from pipeline.utils.similar_ids import suggest_fix

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}

CSV_HEADER = ["label", "enrolment", "test", "score"]
"""The header of the CSV that `seed score` writes by default; its labels may be empty."""

FORMS = (
    ["score", "label"],
    ["enrolment", "test", "score"],
    ["score", "enrolment", "test"],
    CSV_HEADER,
    ["enrolment", "test", "score", "label"],
)
"""The fields of a line; of forms with as many fields, the first that fits. A label is 1|0 or target|nontarget."""


@dataclass(frozen=True)
class ScoredTrials:
    """Trials with scores, in the order of a file."""

    path: Path
    scores: Float64Array
    """[M]."""
    target: BoolArray | None
    """[M]; None if the file has no labels."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Enrolment and test ids, each once; empty if the file names no utterances."""
    pairs: tuple[IntArray, IntArray]
    """Indices [M] of each trial's ids in `names`; empty if the file names no utterances."""
    warning: str | None = None
    """Reason to doubt that the file is complete."""

    @property
    def named(self) -> bool:
        """True if the file names utterances."""
        return bool(self.names[0])


def read_scores(path: Path) -> ScoredTrials:
    """Read lines of one of `FORMS`, or the CSV of `seed score`.

    Raises:
        TrialError: the file is missing, empty, cut off or malformed, a score is not finite, or a pair is there twice.
    """
    ends: list[bool] = []
    lines = _read_fields(path, ends)
    first = next(lines, None)
    if first is None:
        raise TrialError(f"{path}: holds no scores.")
    form = _find_form(first[1])
    if form is None:
        forms = ", ".join(f"`{' '.join(form)}`" for form in FORMS)
        raise TrialError(f"{path}:{first[0]}: expected {forms} or `{','.join(CSV_HEADER)}`, found {_quote(first[1])}.")
    labels: list[bool | None] = []
    scores: list[float] = []
    numbers: list[int] = []
    known: tuple[dict[str, int], dict[str, int]] = ({}, {})
    indices: tuple[list[int], list[int]] = ([], [])
    for number, fields in lines if first[1] == CSV_HEADER else chain([first], lines):
        row = dict(zip(form, fields, strict=False))
        score = _parse_finite(row.get("score", ""))
        label = LABELS.get(row["label"]) if row.get("label") else None
        if len(fields) != len(form) or score is None or (row.get("label") and label is None):
            hint = "" if score is not None else " A score is a finite number."
            raise TrialError(f"{path}:{number}: expected `{' '.join(form)}`, found {_quote(fields)}.{hint}")
        numbers.append(number)
        scores.append(score)
        labels.append(label)
        if "test" in form:
            for side, ids, key in zip(indices, known, ("enrolment", "test"), strict=True):
                side.append(ids.setdefault(row[key], len(ids)))
    if not scores:
        raise TrialError(f"{path}: holds no scores.")
    if form[0] == "score" and set(scores) <= {0, 1} and "test" in form:
        raise TrialError(f"{path}: is a trial list, `1|0 enrolment test`, not a score file. Give it with --trials.")
    unlabelled = labels.count(None)
    if 0 < unlabelled < len(labels):
        raise TrialError(f"{path}:{numbers[labels.index(None)]}: has no label, although other lines have one.")
    if not ends[-1] and first[1] == CSV_HEADER:
        raise TrialError(f"{_cut_off(path)} Score again.")
    names = tuple(known[0]), tuple(known[1])
    pairs = np.array(indices[0], dtype=np.int64), np.array(indices[1], dtype=np.int64)
    _check_unique(path, pairs[0] * len(names[1]) + pairs[1], numbers)
    target = None if unlabelled else np.array(labels, dtype=np.bool_)
    return ScoredTrials(path, np.array(scores), target, names, pairs, None if ends[-1] else _cut_off(path))


def select_trials(scored: ScoredTrials, trials: Path) -> ScoredTrials:
    """Return the scores of a trial list, with its labels and in its order; scores of other pairs are left out.

    Raises:
        TrialError: the list is malformed or has no labels, or some of its trials have no score.
    """
    if not scored.named:
        raise TrialError(f"{scored.path}: its lines name no utterances, so no trial list can be applied to them.")
    try:
        listed = read_list(trials, *scored.names).trials
    except UnknownUtteranceError as error:
        raise TrialError(f"{scored.path}: has no scores of some listed utterances. {error}") from error
    if listed.target is None:
        raise TrialError(f"{trials}: the list has no labels, but error rates need them. Give a list with labels.")
    codes = scored.pairs[0] * len(scored.names[1]) + scored.pairs[1]
    listed_codes = listed.enrol * len(scored.names[1]) + listed.test
    order = np.argsort(codes)
    rows = order[np.minimum(np.searchsorted(codes, listed_codes, sorter=order), len(codes) - 1)]
    absent = np.flatnonzero(codes[rows] != listed_codes)
    if len(absent):
        enrol, test = scored.names[0][listed.enrol[absent[0]]], scored.names[1][listed.test[absent[0]]]
        count = f"{len(absent):,} of {len(listed_codes):,} trials"
        raise TrialError(f"{scored.path}: {count} of {trials} have no score, first: {enrol} {test}.")
    return replace(scored, scores=scored.scores[rows], target=listed.target, pairs=(listed.enrol, listed.test))


def require_labels(scored: ScoredTrials) -> BoolArray:
    """Return the labels [M].

    Raises:
        TrialError: the scores have no labels.
    """
    if scored.target is None:
        raise TrialError(f"{scored.path}: its lines have no labels. Give the trial list that has them with --trials.")
    return scored.target


def check_same_trials(first: ScoredTrials, second: ScoredTrials) -> None:
    """Check that two files score the same trials, with the same labels, in the same order.

    Raises:
        TrialError: they do not.
    """
    same = len(first.scores) == len(second.scores) and first.named == second.named
    if not same or _ids(first) != _ids(second) or (require_labels(first) != require_labels(second)).any():
        raise TrialError(
            f"{first.path} and {second.path} are not scores of the same trials, line by line. Give the trial list to"
            " compare them on with --trials."
        )


def read_labels(path: Path) -> dict[str, str]:
    """Read lines `utterance label`; a label is a speaker or a group.

    Raises:
        TrialError: the file is missing, empty or malformed, or an utterance is there twice.
    """
    labels: dict[str, str] = {}
    for number, fields in _read_fields(path):
        if len(fields) != 2:
            raise TrialError(f"{path}:{number}: expected `utterance label`, found {_quote(fields)}.")
        if fields[0] in labels:
            raise TrialError(f"{path}:{number}: {fields[0]} already has a label. Keep one of them.")
        labels[fields[0]] = fields[1]
    if not labels:
        raise TrialError(f"{path}: holds no labels.")
    return labels


def label_sides(scored: ScoredTrials, labels: Mapping[str, str | None], where: Path) -> tuple[list[str], Speakers]:
    """Return the distinct labels of the utterances, sorted, and the index of each side's label among them [M].

    Raises:
        TrialError: the scores name no utterances, or one of them has no label.
    """
    if not scored.named:
        raise TrialError(f"{scored.path}: its lines name no utterances, so {where} cannot be applied to them.")
    for name in chain(*scored.names):
        if labels.get(name) is None:
            known = [other for other, label in labels.items() if label is not None]
            advice = suggest_fix([name], known, str(scored.path), str(where)) or "Add it."
            raise UnknownUtteranceError(f"{where}: has no entry for {name!r}, which {scored.path} names. {advice}")
    distinct = sorted({str(labels[name]) for name in chain(*scored.names)})
    index = {label: number for number, label in enumerate(distinct)}
    sides = (np.array([index[str(labels[name])] for name in names], dtype=np.int64) for names in scored.names)
    enrol, test = (side[rows] for side, rows in zip(sides, scored.pairs, strict=True))
    return distinct, (enrol, test)


def _cut_off(path: Path) -> str:
    return f"{path}: does not end with a newline, so its last score may be cut off."


def _find_form(fields: Sequence[str]) -> list[str] | None:
    """Return the form of a line; the first of its length if none fits, and None for any other length."""
    forms = [form for form in FORMS if len(form) == len(fields)]
    fits = (form for form in forms if _fits(dict(zip(form, fields, strict=True))))
    return next(fits, forms[0] if forms else None)


def _fits(row: Mapping[str, str]) -> bool:
    return _parse_finite(row["score"]) is not None and row.get("label", "1") in LABELS


def _ids(scored: ScoredTrials) -> list[tuple[str, str]]:
    enrol, test = scored.names
    return [(enrol[left], test[right]) for left, right in zip(*scored.pairs, strict=True)]


def _check_unique(path: Path, codes: IntArray, numbers: Sequence[int]) -> None:
    order = np.argsort(codes, kind="stable")
    again = order[1:][np.diff(codes[order]) == 0]
    if len(again):
        raise TrialError(f"{path}:{numbers[int(again.min())]}: the pair already has a score. Keep one of them.")


def _read_fields(path: Path, ends: list[bool] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that is not blank; a file with `CSV_HEADER` is read as CSV.

    At the end, append to `ends` whether the last line ends with a newline.
    """
    last = ""

    def read(file: Iterator[str]) -> Iterator[str]:
        nonlocal last
        for line in file:
            last = line
            yield line

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = read(file)
            first = next(lines, "")
            if first.strip().split(",") == CSV_HEADER:
                reader = csv.reader(lines)
                yield 1, CSV_HEADER
                yield from ((1 + reader.line_num, fields) for fields in reader if fields)
            else:
                numbered = enumerate(chain([first], lines), start=1)
                yield from ((number, line.split()) for number, line in numbered if line.strip())
        if ends is not None:
            ends.append(last.endswith(("\n", "\r")))
    except FileNotFoundError:
        raise TrialError(f"{path}: no such file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError) and error.object[:2] in UTF_16:
            raise TrialError(f"{path}: is text in UTF-16. Save it as UTF-8.") from error
        raise TrialError(f"{path}: not a text file in UTF-8 ({error}).") from error


def _parse_finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _quote(fields: Sequence[str]) -> str:
    return repr(" ".join(fields)[:80])
