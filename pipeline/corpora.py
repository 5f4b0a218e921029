"""Corpora by name: where their speech, noise, music and rooms lie, and which files make up each set."""

import os
import re
from pathlib import Path

from pydantic import Field, field_validator

from pipeline.errors import CorpusError
from pipeline.manifest import Utterance, legible
from pipeline.validation import Frozen, load_yaml, validated

ROLES = ("speech", "noise", "music", "rooms", "babble")
"""Folders of a corpus; babble is talkers of their own, where they are not among the speech."""
SIMULATED = "simulated"
"""Keyword and folder of rooms that are simulated rather than recorded."""

_GLOB = re.compile(r"[*?\[]")


class Synthesis(Frozen):
    """How large a synthetic corpus is; see `demo.corpus.make_demo`."""

    train_voices: int = Field(ge=1)
    test_voices: int = Field(ge=2)
    babble_voices: int = Field(ge=1)
    utterances: int = Field(ge=2)
    background: float = Field(ge=0, le=1)


class Origin(Frozen):
    """Where a corpus comes from: an archive to download, or synthesis by this package."""

    page: str | None = None
    url: str | None = None
    sha256: str | None = None
    synthesis: Synthesis | None = None


class Split(Frozen):
    """File patterns of one split, each below its role's folder; babble without a folder is below speech."""

    speech: str
    noise: str | None = None
    music: str | None = None
    rooms: str | None = None
    babble: str | None = None


class Corpus(Frozen):
    """One entry of `data/corpora.yaml`."""

    title: str
    licence: str
    origin: Origin = Origin()
    root: str | None = None
    """The folder that holds the role folders; None: the data root."""
    folders: dict[str, str] = Field(default_factory=lambda: {role: role for role in ROLES if role != "babble"})
    speaker: str | None = None
    """Regular expression on a file's path below the speech folder; its first group is the speaker. None: unknown."""
    simulated_rooms: int = Field(200, ge=1)
    overlap: bool = False
    """Whether train and test may share speakers, noise, music, rooms or talkers: figures are then no evidence."""
    train: Split
    test: Split

    @field_validator("folders")
    @classmethod
    def _roles_are_known(cls, folders: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(folders) - set(ROLES))
        if unknown or "speech" not in folders:
            raise ValueError(f"folders are named {', '.join(ROLES)}, speech at least; got {sorted(folders)}")
        return folders

    @field_validator("speaker")
    @classmethod
    def _speaker_is_a_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _speaker_pattern(pattern)
        return pattern


def read_corpus(path: Path, name: str) -> Corpus:
    """Read one corpus definition.

    Raises:
        ConfigError: the file or the definition is malformed.
        CorpusError: there is no corpus of that name.
    """
    definitions = load_yaml(path)
    if name not in definitions:
        there = ", ".join(sorted(map(str, definitions)))
        raise CorpusError(f"{path}: no corpus {name!r}; there are {there}. Define it there.")
    return validated(Corpus, definitions[name], f"{path}: {name}")


def data_root(corpus: Corpus, given: str | None) -> Path:
    """Return the folder above a corpus's role folders: as given, else $SEED_DATA, else data/corpora."""
    base = Path(os.path.expanduser(given or os.environ.get("SEED_DATA") or "data/corpora"))
    return base / corpus.root if corpus.root else base


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a glob pattern, in the order of their names.

    Raises:
        CorpusError: the folder does not exist, or nothing matches.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder. Fetch the corpus, or correct its folders in data/corpora.yaml.")
    try:
        found = list(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise CorpusError(f"file pattern {pattern!r}: {error}. Give one such as '*/*.wav'.") from error
    files = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    if not files:
        raise CorpusError(f"{folder}: nothing matches {pattern!r}. Correct the pattern in data/corpora.yaml.")
    return files


def list_utterances(folder: Path, pattern: str, speaker: str | None) -> list[Utterance]:
    """List the speech files below `folder` that match `pattern`.

    An id is the path below the pattern's fixed part (see `legible`); `speaker` is a regular expression on the path
    below `folder` (see `Corpus`). Paths are given as found, so relative to the working folder if `folder` is.

    Raises:
        CorpusError: nothing matches, or the speaker cannot be read from a path.
    """
    speaks = _speaker_pattern(speaker) if speaker else None
    fixed = folder.joinpath(*_fixed_part(pattern))
    utterances = []
    for path in list_files(folder, pattern):
        name, below = path.relative_to(fixed).as_posix(), path.relative_to(folder).as_posix()
        match = speaks.search(below) if speaks else None
        if speaks and match is None:
            raise CorpusError(
                f"{path}: the speaker pattern {speaker!r} finds nothing in {below!r}. Correct the pattern."
            )
        utterances.append(Utterance(legible(name), path.as_posix(), legible(match[1]) if match else None))
    return utterances


def _speaker_pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise CorpusError(f"speaker pattern {text!r}: not a regular expression ({error})") from None
    if pattern.groups < 1:
        raise CorpusError(f"speaker pattern {text!r}: needs a group, as in 'SPEAKER(\\d+)'")
    return pattern


def _fixed_part(pattern: str) -> list[str]:
    """Return the leading components of a glob pattern that hold no wildcard, the file name left out."""
    parts = Path(pattern).parts[:-1]
    fixed = []
    for part in parts:
        if _GLOB.search(part):
            break
        fixed.append(part)
    return fixed
