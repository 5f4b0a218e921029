"""Ids of a list that nobody holds: where the first ones stand, and what may be wrong with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnknownUtteranceError

_SHOWN = 5


class MissingIds:
    """Gathers the ids of a list that are not known, to be said all at once."""

    def __init__(self, path: Path, what: str, where: str) -> None:
        """Args: path: the list. what: what a line of it is. where: the ids should be."""
        self._path, self._what, self._where = path, what, where
        self._first: dict[tuple[int, str], int] = {}
        self._wrong = self._lines = 0

    def note(self, lines: NDArray[np.int64], sides: Sequence[tuple[list[bytes], NDArray[np.int32]]]) -> None:
        """Look through some lines: their numbers [L], and of each side the ids and their rows [L], -1 if unknown."""
        missing = np.stack([found < 0 for _, found in sides])
        wrong = np.flatnonzero(missing.any(axis=0))
        self._lines += len(lines)
        self._wrong += len(wrong)
        for place in wrong:
            if len(self._first) >= _SHOWN:
                break
            for side, (names, _) in enumerate(sides):
                if missing[side, place]:
                    self._add(side, names[place], int(lines[place]))

    def note_line(self, line: int, names: Sequence[bytes], found: NDArray[np.int32]) -> None:
        """Look through one line of ids [R] of one side, and their rows [R]."""
        self._lines += 1
        self._wrong += bool((found < 0).any())
        for name, row in zip(names, found, strict=True):
            if row < 0:
                self._add(0, name, line)

    def _add(self, side: int, name: bytes, line: int) -> None:
        if len(self._first) < _SHOWN:
            self._first.setdefault((side, name.decode("utf-8", "backslashreplace")), line)

    def check(self, *known: Sequence[str]) -> None:
        """Raise UnknownUtteranceError if there were any, given the ids that each side does know."""
        if not self._first:
            return
        places = [f"{name} ({self._path}:{line})" for (_, name), line in self._first.items()]
        hints = (suggest_fix(name, known[side]) for side, name in self._first)
        advice = next(filter(None, hints), "Extract them or fix the list; ids are those of the manifest.")
        raise UnknownUtteranceError(
            f"{self._wrong:,} of {self._lines:,} {self._what} name utterances that are not {self._where}, first:"
            f" {', '.join(places)}. {advice}"
        )


def suggest_fix(name: str, known: Sequence[str]) -> str | None:
    """Say how an id of a list differs from one that is known, if only by a leading folder or by its extension."""
    stem = _stem(name)
    for other in known:
        theirs = _stem(other)
        if theirs == stem or theirs.endswith("/" + stem) or stem.endswith("/" + theirs):
            differences = []
            if len(theirs) > len(stem):
                differences.append(f"the store's ids begin with {theirs.removesuffix(stem)!r}")
            if len(stem) > len(theirs):
                differences.append(f"the list's ids begin with {stem.removesuffix(theirs)!r}")
            ours, extension = name.removeprefix(stem), other.removeprefix(theirs)
            if ours != extension:
                differences.append(f"the list has the extension {ours!r}, the store {extension!r}")
            return f"The store holds {other!r}: {', and '.join(differences)}. Make the ids of both alike."
    return None


def _stem(name: str) -> str:
    """Return an id without its extension, if it has one such as .wav or .m4a."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and len(suffix) <= 5 and suffix.isalnum() and not suffix.isdecimal() else name
