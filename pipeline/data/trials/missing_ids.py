"""Unknown ids of a list: the lines of the first ones, and a suggestion to fix them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnknownUtteranceError
from pipeline.utils.similar_ids import suggest_fix

_SHOWN = 5


class MissingIds:
    """The unknown ids of a list, collected for one error."""

    def __init__(self, path: Path, what: str, where: str) -> None:
        """Args: path: the list. what: name of its lines, such as trials. where: expected source of the ids."""
        self._path, self._what, self._where = path, what, where
        self._first: dict[tuple[int, str], int] = {}
        self._wrong = self._lines = 0

    def note(self, lines: NDArray[np.int64], sides: Sequence[tuple[list[bytes], NDArray[np.int32]]]) -> None:
        """Check some lines, given their numbers [L], and for each side the ids and their rows [L], -1 if unknown."""
        missing = np.stack([rows < 0 for _, rows in sides])
        wrong = np.flatnonzero(missing.any(axis=0))
        self._lines += len(lines)
        self._wrong += len(wrong)
        for place in wrong:
            if len(self._first) >= _SHOWN:
                break
            for side, (names, _) in enumerate(sides):
                if missing[side, place]:
                    self._add(side, names[place], int(lines[place]))

    def note_line(self, line: int, names: Sequence[bytes], rows: NDArray[np.int32]) -> None:
        """Check one line of ids [R] of one side, given their rows [R]."""
        self._lines += 1
        self._wrong += bool((rows < 0).any())
        for name, row in zip(names, rows, strict=True):
            if row < 0:
                self._add(0, name, line)

    def _add(self, side: int, name: bytes, line: int) -> None:
        if len(self._first) < _SHOWN:
            self._first.setdefault((side, name.decode("utf-8", "backslashreplace")), line)

    def check(self, *known: Sequence[str]) -> None:
        """Raise UnknownUtteranceError if there are unknown ids, given the known ids of each side."""
        if not self._first:
            return
        places = [f"{name} ({self._path}:{line})" for (_, name), line in self._first.items()]
        by_side = [[name for place, name in self._first if place == side] for side in range(len(known))]
        fixes = (suggest_fix(names, ids) for names, ids in zip(by_side, known, strict=True) if names)
        advice = next(filter(None, fixes), "Extract them or fix the list; ids are those of the manifest.")
        raise UnknownUtteranceError(
            f"{self._wrong:,} of {self._lines:,} {self._what} name utterances that are not {self._where}, first:"
            f" {', '.join(places)}. {advice}"
        )
