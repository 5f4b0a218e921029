"""Formats of trial lists: their columns, their detection, and the splitting of lines into fields."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TARGET = frozenset({b"1", b"target", b"tgt", b"true"})
NONTARGET = frozenset({b"0", b"nontarget", b"non-target", b"imp", b"impostor", b"imposter", b"false"})
_DIGITS, _WORDS = frozenset({b"1", b"0"}), (TARGET | NONTARGET) - {b"1", b"0"}

_ENROL = frozenset(
    f"{name}{suffix}" for name in ("model", "enrol", "enroll", "enrolment", "enrollment") for suffix in ("", "id")
) | {"utt1", "path1", "file1"}
_TEST = frozenset(("segment", "segmentid", "test", "testid", "testsegment", "testsegmentid", "utt2", "path2", "file2"))
_LABEL = frozenset({"targettype", "target", "label", "key", "trialtype"})

_SPACE = np.zeros(256, dtype=np.bool_)
_SPACE[list(b" \t\n\r\v\f")] = True


@dataclass(frozen=True)
class TrialFormat:
    """Layout of a line: the columns of enrolment, test and label (None: unlabeled), and the number of columns."""

    name: str
    width: int
    enrol: int
    test: int
    label: int | None
    labels: frozenset[bytes] = frozenset()
    """Values that the label column may have."""
    delimiter: bytes | None = None
    """Separator of the columns; None: any white space."""
    header: bool = False
    shape: str = ""
    """Pattern of a line, for messages."""


VOXCELEB = TrialFormat("VoxCeleb", 3, 1, 2, 0, _DIGITS, shape="1|0 enrolment test")
KALDI = TrialFormat("Kaldi", 3, 0, 1, 2, _WORDS, shape="enrolment test target|nontarget")
CNCELEB = TrialFormat("CN-Celeb", 3, 0, 1, 2, _DIGITS, shape="enrolment test 1|0")
UNLABELED = TrialFormat("unlabeled", 2, 0, 1, None, shape="enrolment test")
HEADERLESS = (KALDI, VOXCELEB, CNCELEB, UNLABELED)
"""Formats without a header, in the order of detection: a model may be called 1, but none is called target."""


def detect_format(line: bytes) -> TrialFormat | None:
    """Return the format of a list from its first line, or None if it fits none."""
    if table := detect_table(line):
        return table
    fields = line.split()
    return next((format for format in HEADERLESS if _fits(format, fields)), None)


def detect_table(line: bytes) -> TrialFormat | None:
    """Return the format of a table from its header, or None if the line does not name both sides."""
    delimiter = next((mark for mark in (b"\t", b",", b";") if mark in line), None)
    return _detect_table(split_line(line, delimiter), delimiter) or _detect_table(line.split(), None)


def split_line(line: bytes, delimiter: bytes | None) -> list[bytes]:
    """Return the fields of a line, without surrounding white space and quotes."""
    return line.split() if delimiter is None else [cell.strip(b'" \t\r') for cell in line.split(delimiter)]


def _detect_table(names: Sequence[bytes], delimiter: bytes | None) -> TrialFormat | None:
    """Return the format of a header that names an enrolment and a test column, or None."""
    plain = [name.decode("utf-8", "replace").lower().translate(str.maketrans("", "", "_-. ")) for name in names]
    enrol, test, label = (
        [column for column, name in enumerate(plain) if name in known] for known in (_ENROL, _TEST, _LABEL)
    )
    if len(enrol) != 1 or len(test) != 1 or len(label) > 1:
        return None
    shape = (delimiter or b" ").decode().join(name.decode("utf-8", "replace") for name in names)
    label_column = label[0] if label else None
    return TrialFormat("table", len(names), enrol[0], test[0], label_column, TARGET | NONTARGET, delimiter, True, shape)


def _fits(format: TrialFormat, fields: Sequence[bytes]) -> bool:
    if len(fields) != format.width:
        return False
    # `1 a` is a truncated VoxCeleb line rather than an utterance called 1.
    return fields[0] not in _DIGITS if format.label is None else fields[format.label].lower() in format.labels


def split_block(block: bytes, format: TrialFormat) -> tuple[NDArray[np.int64], list[bytes]]:
    """Split whole lines into fields; return their number in each line [L] (0 if blank), and all fields in order."""
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(data))
    if format.delimiter is None:
        space = _SPACE[data]
        begins = np.flatnonzero(~space & np.concatenate([[True], space[:-1]]))
        return np.diff(np.searchsorted(begins, ends), prepend=0), block.split()
    marks = np.diff(np.searchsorted(np.flatnonzero(data == ord(format.delimiter)), ends), prepend=0)
    filled = np.diff(ends, prepend=-1) > 1 + (data[ends - 1] == ord("\r"))
    lines = re.sub(rb"(?:\r?\n)+", b"\n", block).strip(b"\r\n").replace(b"\n", format.delimiter)
    fields = lines.split(format.delimiter) if lines else []
    if b'"' in lines or b" " in lines:
        fields = [field.strip(b'" ') for field in fields]
    return np.where(filled, marks + 1, 0), fields
