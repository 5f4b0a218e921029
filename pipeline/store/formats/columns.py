"""What forms with a table of vectors and a list of ids have in common: which is which, and ids in text files."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from pipeline.errors import ExchangeError

ID_NAMES = ("utterance", "id")
"""What a column of ids is called, in any case of letters, where it is not the only one of text."""

_CHARACTERS = 2**21
"""Of a list of ids that are read at once."""
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")


def chosen(path: Path, what: str, names: Sequence[str], preferred: str) -> str:
    """Return the only name, or the preferred one.

    Raises:
        ExchangeError: there is none, or there are several.
    """
    if preferred in names:
        return preferred
    if len(names) == 1:
        return names[0]
    found = f"{len(names)} {what} ({', '.join(names[:3])})" if names else f"no {what}"
    raise ExchangeError(f"{path}: holds {found}. Name the one that is meant {preferred!r}.")


def id_column(path: Path, texts: Sequence[str], others: Sequence[str]) -> str:
    """Return the column of ids: that of one of `ID_NAMES`, text or not, or else the only one of text.

    Raises:
        ExchangeError: there is none, or it may be one or another.
    """
    named = [name for wanted in ID_NAMES for name in (*texts, *others) if name.strip().lower() == wanted]
    if not named:
        return chosen(path, "columns of text", texts, ID_NAMES[0])
    if named[0] not in texts and texts and named[0].strip().lower() != ID_NAMES[0]:
        raise ExchangeError(
            f"{path}: ids may be {named[0]!r}, which is no text, or {texts[0]!r}. Name the column that is meant"
            f" {ID_NAMES[0]!r}."
        )
    return named[0]


def numbered(path: Path, names: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Return the columns that are a vector, in its order: numbered from 0 or 1, after one common prefix.

    Args:
        path: for messages.
        names: of all columns; those returned are all of the prefix, whatever they hold.
        numbers: those that hold numbers, among which the prefix is looked for.

    Raises:
        ExchangeError: there are none, several such groups, or a number is left out or there twice.
    """
    prefixes = dict.fromkeys(match[1] for match in map(_NUMBERED.fullmatch, numbers) if match)
    prefix = chosen(path, "groups of numbered columns", [f"{name}0…" for name in prefixes], "e0…")[:-2]
    group: dict[int, str] = {}
    for match in map(_NUMBERED.fullmatch, names):
        if match and match[1] == prefix:
            if int(match[2]) in group:
                raise ExchangeError(f"{path}: column {match[0]!r} is there twice. Remove one.")
            group[int(match[2])] = match[0]
    order = sorted(group)
    if order[0] > 1 or order != list(range(order[0], order[0] + len(order))):
        gap = next((low + 1 for low, high in pairwise(order) if high > low + 1), 0)
        raise ExchangeError(f"{path}: column {prefix}{gap} is not there, of those up to {group[order[-1]]}.")
    return [group[number] for number in order]


def ids_beside(path: Path, ids: Path | None) -> Path:
    """Return the text file of a file's ids: the one given, or that beside it.

    Raises:
        ExchangeError: there is none, or there are both.
    """
    found = found_beside(path)
    if ids is not None:
        if found and not found.samefile(ids):
            raise own_ids(path, found.name)
        return ids
    if found:
        return found
    raise ExchangeError(
        f"{path}: holds no ids, and neither {path.stem}.ids nor {path.stem}.txt is beside it. Write one id a line"
        " there, or name the file with --ids."
    )


def own_ids(path: Path, where: str) -> ExchangeError:
    """Return what is said where ids are given for a file that has some: which ones are meant is not guessed."""
    return ExchangeError(
        f"{path}: has ids of its own ({where}), and --ids gives others. Leave --ids out; those of a file without any"
        " may be beside it, in <name>.ids."
    )


def found_beside(path: Path) -> Path | None:
    """Return the text file of ids beside a file, if there is one."""
    names = [path.with_name(path.name + suffix) for suffix in (".ids", ".txt")]  # `emb.v2.ids` before `emb.ids`
    return next((name for name in [*names, *map(path.with_suffix, (".ids", ".txt"))] if name.is_file()), None)


def beside(path: Path, suffix: str, own: Sequence[str]) -> Path:
    """Return what a file's companion is called: its name with `suffix`, in the place of its own one if of `own`."""
    return path.with_suffix(suffix) if path.suffix.lower() in own else path.with_name(path.name + suffix)


def counted(path: Path, ids: Path | None, count: int) -> Iterator[list[str]]:
    """Yield the lines of a text file of ids, which are `count`.

    Raises:
        ExchangeError: they are more or fewer, or no text in UTF-8.
    """
    assert ids is not None
    found = 0
    try:
        with ids.open(encoding="utf-8-sig", newline=None) as file:
            rest = ""
            while text := file.read(_CHARACTERS):
                *lines, rest = (rest + text).split("\n")  # several times as fast as line by line
                found += len(lines)
                yield lines
            if rest:
                found += 1
                yield [rest]
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{ids}: not a text in UTF-8 ({error}). Save it as UTF-8.") from error
    if found != count:
        raise ExchangeError(
            f"{ids}: {found:,} ids for the {count:,} vectors of {path}. Write one a line, in row order."
        )


def check_first_id(path: Path, names: Sequence[str]) -> None:
    """Raise ExchangeError if the first of ids in a text file could not be told from a mark of its encoding."""
    if names and names[0].startswith("\ufeff"):
        raise ExchangeError(
            f"{path}: id {names[0]!r} begins with U+FEFF, which is lost at the start of a text file. Take .npz."
        )


def id_lines(path: Path, names: Sequence[str], file: TextIO) -> None:
    """Write ids as lines.

    Raises:
        ExchangeError: an id holds a line break.
    """
    for name in names:
        if "\n" in name or "\r" in name:
            raise ExchangeError(f"{path}: id {name!r} has a line break, which a list of ids cannot hold. Take .npz.")
        file.write(f"{name}\n")
