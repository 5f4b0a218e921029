"""Helpers of formats that hold a table of vectors and a list of ids: columns by name, and text files of ids."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from pipeline.errors import ExchangeError

ID_NAMES = ("utterance", "id")
"""Names of a column of ids, in upper or lower case. The only column of text needs no such name."""

_CHARACTERS = 2**21
"""Number of characters of a list of ids that are read at once."""
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")


def choose_name(path: Path, what: str, names: Sequence[str], preferred: str) -> str:
    """Return the preferred name if it is there, else the only one; raise ExchangeError if there is none or several."""
    if preferred in names:
        return preferred
    if len(names) == 1:
        return names[0]
    found = f"{len(names)} {what} ({', '.join(names[:3])})" if names else f"no {what}"
    raise ExchangeError(f"{path}: holds {found}. Name the right one {preferred!r}.")


def find_id_column(path: Path, texts: Sequence[str], others: Sequence[str]) -> str:
    """Return the column of ids: the one named in `ID_NAMES`, text or not, else the only column of text.

    Raise ExchangeError if there is no such column, or the choice is ambiguous.
    """
    named = [name for wanted in ID_NAMES for name in (*texts, *others) if name.strip().lower() == wanted]
    if not named:
        return choose_name(path, "columns of text", texts, ID_NAMES[0])
    if named[0] not in texts and texts and named[0].strip().lower() != ID_NAMES[0]:
        either = f"{named[0]!r}, which is not text, or {texts[0]!r}"
        raise ExchangeError(f"{path}: ids may be {either}. Name the right column {ID_NAMES[0]!r}.")
    return named[0]


def find_vector_columns(path: Path, names: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Return the columns of the vectors, in order: those numbered from 0 or 1 after a common prefix.

    Raise ExchangeError if there is no such group or several, or if a number is missing or repeated.

    Args:
        path: path for messages.
        names: names of all columns; all of the prefix are returned, whatever they hold.
        numbers: names of the columns of numbers, which determine the prefix.
    """
    prefixes = dict.fromkeys(match[1] for match in map(_NUMBERED.fullmatch, numbers) if match)
    prefix = choose_name(path, "groups of numbered columns", [f"{name}0…" for name in prefixes], "e0…")[:-2]
    group: dict[int, str] = {}
    for match in map(_NUMBERED.fullmatch, names):
        if match and match[1] == prefix:
            if int(match[2]) in group:
                raise ExchangeError(f"{path}: column {match[0]!r} is there twice. Remove one.")
            group[int(match[2])] = match[0]
    order = sorted(group)
    if order[0] > 1 or order != list(range(order[0], order[0] + len(order))):
        gap = next((low + 1 for low, high in pairwise(order) if high > low + 1), 0)
        raise ExchangeError(f"{path}: column {prefix}{gap} is missing, of those up to {group[order[-1]]}. Add it.")
    return [group[number] for number in order]


def find_ids(path: Path, ids: Path | None) -> Path:
    """Return the given text file of ids, or the one beside the file; raise ExchangeError for neither or both."""
    found = find_sidecar(path)
    if ids is not None:
        if found and not found.samefile(ids):
            raise redundant_ids_error(path, found.name)
        return ids
    if found:
        return found
    raise ExchangeError(
        f"{path}: holds no ids, and neither {path.stem}.ids nor {path.stem}.txt is beside it. Write one id per line"
        " there, or name the file with --ids."
    )


def redundant_ids_error(path: Path, where: str) -> ExchangeError:
    """Return the error for a file that has ids of its own and is given others."""
    return ExchangeError(
        f"{path}: has ids of its own ({where}), and --ids gives others. Omit --ids; for other files, put their ids"
        " beside them in <name>.ids."
    )


def find_sidecar(path: Path) -> Path | None:
    """Return the text file of ids beside a file, or None."""
    names = [path.with_name(path.name + suffix) for suffix in (".ids", ".txt")]  # `emb.v2.ids` before `emb.ids`
    return next((name for name in [*names, *map(path.with_suffix, (".ids", ".txt"))] if name.is_file()), None)


def sidecar_path(path: Path, suffix: str, own: Sequence[str]) -> Path:
    """Return a file's path with `suffix`, which replaces the file's suffix if that is in `own`."""
    return path.with_suffix(suffix) if path.suffix.lower() in own else path.with_name(path.name + suffix)


def read_ids(path: Path, ids: Path | None, count: int) -> Iterator[list[str]]:
    """Yield the `count` lines of a text file of ids, without blank lines at its end.

    Raise ExchangeError for another count, or if the file is not UTF-8.
    """
    assert ids is not None
    found = 0
    blank = list[str]()  # blank lines that are ids only if others follow, for the check of empty ids
    try:
        with ids.open(encoding="utf-8-sig", newline=None) as file:
            rest = ""
            while text := file.read(_CHARACTERS):
                *lines, rest = (*blank, *(rest + text).split("\n"))  # several times as fast as line by line
                end = _count_filled(lines)
                lines, blank = lines[:end], lines[end:]
                found += len(lines)
                yield lines
            if rest.strip():
                found += len(blank) + 1
                yield [*blank, rest]
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{ids}: not a text in UTF-8 ({error}). Save it as UTF-8.") from error
    if found != count:
        raise ExchangeError(f"{ids}: {found:,} ids for the {count:,} vectors of {path}. Write one per line, in order.")


def _count_filled(lines: Sequence[str]) -> int:
    """Return the number of lines up to the last one that is not blank."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return end


def check_first_id(path: Path, names: Sequence[str]) -> None:
    """Raise ExchangeError if the first id would be read as a byte order mark at the start of a text file."""
    if names and names[0].startswith("\ufeff"):
        raise ExchangeError(f"{path}: id {names[0]!r} begins with U+FEFF, which text files lose there. Use .npz.")


def write_ids(path: Path, names: Sequence[str], file: TextIO) -> None:
    """Write one id per line; raise ExchangeError if an id holds a line break."""
    for name in names:
        if "\n" in name or "\r" in name:
            raise ExchangeError(f"{path}: id {name!r} has a line break, which a list of ids cannot hold. Use .npz.")
        file.write(f"{name}\n")
