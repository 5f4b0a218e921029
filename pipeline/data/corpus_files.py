"""The files of a corpus: those that match its patterns, as paths and as utterances."""

import re
from itertools import takewhile
from pathlib import Path, PurePath

from pipeline.data.corpora import OneOrMore, as_list, compile_speaker_pattern
from pipeline.data.manifest import Utterance, escape_undecodable
from pipeline.errors import CorpusError

_WILDCARD = re.compile(r"[*?\[]")


def list_files(folder: Path, patterns: OneOrMore) -> list[Path]:
    """Return the files below a folder that match any of the glob patterns, sorted by name.

    Raises:
        CorpusError: the folder does not exist, or nothing matches one of the patterns.
    """
    return sorted(set().union(*(_require_files(folder, pattern) for pattern in as_list(patterns))))


def list_utterances(folder: Path, patterns: OneOrMore, speaker: str | None) -> list[Utterance]:
    """List the speech files below `folder` that match any of `patterns`.

    An id is the path below the pattern's leading folders without wildcards (see `escape_undecodable`). `speaker` is a
    regular expression on the path below `folder` (see `Corpus`). Paths are relative if `folder` is.

    Raises:
        CorpusError: nothing matches, two files have the same id, or a path does not show its speaker.
    """
    expression = compile_speaker_pattern(speaker) if speaker else None
    names: dict[Path, str] = {}
    for pattern in as_list(patterns):
        fixed = folder.joinpath(*find_fixed_folders(pattern))
        paths = _require_files(folder, pattern)
        names |= {path: escape_undecodable(path.relative_to(fixed).as_posix()) for path in paths}
    known: dict[str, Path] = {}
    utterances = []
    for path, name in sorted(names.items()):
        below = path.relative_to(folder).as_posix()
        match = expression.search(below) if expression else None
        if expression and match is None:
            raise CorpusError(f"{path}: the speaker pattern {speaker!r} does not match {below!r}. Correct the pattern.")
        if known.setdefault(name, path) != path:
            raise CorpusError(
                f"{path} and {known[name]} are both utterance {name!r}. Start the wildcards of the patterns further up."
            )
        owner = escape_undecodable(match[1]) if match and match[1] else None
        utterances.append(Utterance(name, path.as_posix(), owner))
    return utterances


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a glob pattern, without hidden files.

    Raises:
        CorpusError: the pattern is invalid.
    """
    if PurePath(pattern).is_absolute():
        raise CorpusError(f"file pattern {pattern!r}: is absolute. Give one below the folder, such as '*/*.wav'.")
    try:
        paths = list(folder.glob(pattern))
    except ValueError as error:
        raise CorpusError(f"file pattern {pattern!r}: {error}. Give one such as '*/*.wav'.") from error
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


def find_fixed_folders(pattern: str) -> list[str]:
    """Return the leading folders of a glob pattern that contain no wildcard."""
    return list(takewhile(lambda folder: not _WILDCARD.search(folder), Path(pattern).parts[:-1]))


def _require_files(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder. Fetch the corpus, or correct its folders in data/corpora.yaml.")
    files = find_files(folder, pattern)
    if not files:
        raise CorpusError(f"{folder}: nothing matches {pattern!r}. Correct the pattern in data/corpora.yaml.")
    return files
