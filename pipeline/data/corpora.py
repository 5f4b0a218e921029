"""Corpora by name: where their speech, noise, music and rooms lie, and which files make up each set."""

import os
import re
from pathlib import Path, PurePath

from pydantic import Field, field_validator, model_validator

from pipeline.config.conditions import is_condition
from pipeline.data.manifest import Utterance, escape_undecodable
from pipeline.errors import CorpusError
from pipeline.utils.validation import Frozen, load_yaml, validated

ROLES = ("speech", "noise", "music", "rooms", "babble")
"""Folders of a corpus; babble is talkers of their own, where they are not among the speech."""
SIMULATED = "simulated"
"""Keyword and folder of rooms that are simulated rather than recorded."""
LISTS = "trials"
"""Folder of the trial lists that the test set is scored by, one file a list."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
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
    terms: str | None = None
    """What a person has to accept or do by hand to get it."""
    url: str | None = None
    sha256: str | None = None
    synthesis: Synthesis | None = None


OneOrMore = str | list[str]

_OWN_FOLDERS = {role: role for role in ROLES if role != "babble"}


class Split(Frozen):
    """File patterns of one split, each below its role's folder; babble without a folder is below speech.

    Where a role has several folders, a pattern begins with the name of one of them.
    """

    speech: OneOrMore
    noise: OneOrMore | None = None
    music: OneOrMore | None = None
    rooms: OneOrMore | None = None
    babble: OneOrMore | None = None


class PublishedList(Frozen):
    """A trial list that people know by name: where it lies below the root, and how many trials it should hold."""

    path: str
    trials: int | None = Field(None, ge=1)
    targets: int | None = Field(None, ge=1)
    source: str
    """Where a person gets it, or the command that builds it."""


class Corpus(Frozen):
    """One entry of `data/corpora.yaml`."""

    title: str
    licence: str
    origin: Origin = Origin()
    root: str | None = None
    """The folder that holds the role folders; None: the data root."""
    folders: dict[str, OneOrMore] = Field(default_factory=lambda: dict[str, OneOrMore](_OWN_FOLDERS))
    speaker: str | None = None
    """Regular expression on a file's path below the speech folder; its first group is the speaker. None, or a group
    that takes no part in the match: unknown."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What is known of speakers: pattern below the speech folder of files with lines `speaker value`, by column."""
    simulated_rooms: int = Field(200, ge=1)
    overlap: bool = False
    """Whether train and test may share speakers, noise, music, rooms or talkers: figures are then no evidence."""
    train: Split | None = None
    test: Split | None = None
    """Both are needed to train and test; without them the corpus is a part of others."""
    parts: list[str] = Field(default_factory=list)
    """The corpora that this one is put together from."""
    files: dict[str, int | None] = Field(default_factory=dict)
    """How many files the published corpus has, by pattern below the root; null: nobody says."""
    lists: dict[str, PublishedList] = Field(default_factory=dict)
    """Trial lists published with the corpus."""
    trials: list[str] = Field(default_factory=list)
    """Names of the lists, its own or its parts', that its test set is scored by; empty: all pairs."""

    @field_validator("folders")
    @classmethod
    def _roles_are_known(cls, folders: dict[str, OneOrMore]) -> dict[str, OneOrMore]:
        unknown = sorted(set(folders) - set(ROLES))
        if unknown or "speech" not in folders:
            raise ValueError(f"folders are named {', '.join(ROLES)}, speech at least; got {sorted(folders)}")
        for role, several in folders.items():
            names = [Path(folder).name for folder in as_list(several)]
            if len(set(names)) < len(names):
                raise ValueError(f"folders of {role} must end in different names; got {names}")
        return folders

    @field_validator("labels")
    @classmethod
    def _labels_are_columns(cls, labels: dict[str, str]) -> dict[str, str]:
        if not set(labels) <= {"gender", "age"}:
            raise ValueError(f"labels are gender and age; got {sorted(labels)}")
        return labels

    @field_validator("speaker")
    @classmethod
    def _speaker_is_a_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            compile_speaker_pattern(pattern)
        return pattern

    @model_validator(mode="after")
    def _names_are_names(self) -> "Corpus":
        for name in self.lists:
            if not _NAME.fullmatch(name) or is_condition(name):
                raise ValueError(f"list {name!r}: take a name of letters, digits, '-' and '_' that is no condition's")
        if (self.train is None) != (self.test is None):
            raise ValueError("give both train and test, or neither of a corpus that is a part of others")
        return self


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


def read_corpora(path: Path) -> dict[str, Corpus]:
    """Read all corpus definitions, by name; see `read_corpus`."""
    return {name: read_corpus(path, name) for name in load_yaml(path)}


def data_root(corpus: Corpus, given: str | None) -> Path:
    """Return the folder above a corpus's role folders: as given, else $SEED_DATA, else data/corpora."""
    base = Path(os.path.expanduser(given or os.environ.get("SEED_DATA") or "data/corpora"))
    return base / corpus.root if corpus.root else base


def as_list(patterns: OneOrMore) -> list[str]:
    """Return one or several of something as a list."""
    return [patterns] if isinstance(patterns, str) else patterns


def list_files(folder: Path, patterns: OneOrMore) -> list[Path]:
    """Return the files below a folder that match any glob pattern, in the order of their names.

    Raises:
        CorpusError: the folder does not exist, or nothing matches one of them.
    """
    return sorted(set().union(*(_matches(folder, pattern) for pattern in as_list(patterns))))


def list_utterances(folder: Path, patterns: OneOrMore, speaker: str | None) -> list[Utterance]:
    """List the speech files below `folder` that match any of `patterns`.

    An id is the path below the pattern's leading folders without wildcards (see `escape_undecodable`). `speaker` is a
    regular expression on the path below `folder` (see `Corpus`). Paths are relative if `folder` is.

    Raises:
        CorpusError: nothing matches, two files have one id, or the speaker cannot be read from a path.
    """
    speaks = compile_speaker_pattern(speaker) if speaker else None
    names: dict[Path, str] = {}
    for pattern in as_list(patterns):
        fixed = folder.joinpath(*find_fixed_folders(pattern))
        names |= {path: escape_undecodable(path.relative_to(fixed).as_posix()) for path in _matches(folder, pattern)}
    owners: dict[str, Path] = {}
    utterances = []
    for path, name in sorted(names.items()):
        below = path.relative_to(folder).as_posix()
        match = speaks.search(below) if speaks else None
        if speaks and match is None:
            raise CorpusError(
                f"{path}: the speaker pattern {speaker!r} finds nothing in {below!r}. Correct the pattern."
            )
        if owners.setdefault(name, path) != path:
            raise CorpusError(
                f"{path} and {owners[name]} are both utterance {name!r}. Let the patterns' wildcards begin further up."
            )
        utterances.append(
            Utterance(name, path.as_posix(), escape_undecodable(match[1]) if match and match[1] else None)
        )
    return utterances


def _matches(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder. Fetch the corpus, or correct its folders in data/corpora.yaml.")
    files = find_files(folder, pattern)
    if not files:
        raise CorpusError(f"{folder}: nothing matches {pattern!r}. Correct the pattern in data/corpora.yaml.")
    return files


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a glob pattern, if any, without the hidden ones.

    Raises:
        CorpusError: it is no pattern.
    """
    if PurePath(pattern).is_absolute():
        raise CorpusError(f"file pattern {pattern!r}: is of no files below a folder. Give one such as '*/*.wav'.")
    try:
        found = list(folder.glob(pattern))
    except ValueError as error:
        raise CorpusError(f"file pattern {pattern!r}: {error}. Give one such as '*/*.wav'.") from error
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def compile_speaker_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression whose first group is the speaker.

    Raises:
        CorpusError: it is malformed or has no group.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise CorpusError(f"speaker pattern {text!r}: not a regular expression ({error})") from None
    if pattern.groups < 1:
        raise CorpusError(f"speaker pattern {text!r}: needs a group, as in 'SPEAKER(\\d+)'")
    return pattern


def find_fixed_folders(pattern: str) -> list[str]:
    """Return the leading components of a glob pattern that hold no wildcard, the file name left out."""
    parts = Path(pattern).parts[:-1]
    fixed = []
    for part in parts:
        if _GLOB.search(part):
            break
        fixed.append(part)
    return fixed
