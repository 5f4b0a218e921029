"""Definitions of corpora: the folders of their speech, noise, music and rooms, and the files of each set."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.config.conditions import is_condition
from pipeline.errors import CorpusError
from pipeline.utils.validation import Frozen, load_yaml, validated

ROLES = ("speech", "noise", "music", "rooms", "babble")
"""Folders of a corpus; `babble` holds background talkers that are not among the speech."""
SIMULATED = "simulated"
"""Keyword for simulated rooms, and their folder."""
LISTS = "trials"
"""Folder of the trial lists that score the test set, one file for each list."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Synthesis(Frozen):
    """The size of a synthetic corpus; see `demo.corpus.make_demo`."""

    train_voices: int = Field(ge=1)
    test_voices: int = Field(ge=2)
    babble_voices: int = Field(ge=1)
    utterances: int = Field(ge=2)
    background: float = Field(ge=0, le=1)


class Origin(Frozen):
    """The origin of a corpus: an archive to download, or synthesis by this package."""

    page: str | None = None
    terms: str | None = None
    """Terms to accept, or steps to do by hand, to get the corpus."""
    url: str | None = None
    sha256: str | None = None
    synthesis: Synthesis | None = None


OneOrMore = str | list[str]

_OWN_FOLDERS = {role: role for role in ROLES if role != "babble"}


class Split(Frozen):
    """File patterns of one split, each below the folder of its role.

    Babble without its own folder lies below speech. If a role has several folders, each pattern begins with the name
    of one of them.
    """

    speech: OneOrMore
    noise: OneOrMore | None = None
    music: OneOrMore | None = None
    rooms: OneOrMore | None = None
    babble: OneOrMore | None = None


class PublishedList(Frozen):
    """A well-known trial list: its path below the root, and the numbers of trials that it should hold."""

    path: str
    trials: int | None = Field(None, ge=1)
    targets: int | None = Field(None, ge=1)
    source: str
    """The place to get it from, or the command that builds it."""


class Corpus(Frozen):
    """One entry of `data/corpora.yaml`."""

    title: str
    licence: str
    origin: Origin = Origin()
    root: str | None = None
    """Folder that holds the role folders; None: the data root."""
    folders: dict[str, OneOrMore] = Field(default_factory=lambda: dict[str, OneOrMore](_OWN_FOLDERS))
    speaker: str | None = None
    """Regular expression on a file's path below the speech folder; its first group is the speaker. The speaker is
    unknown if there is no expression, or if the group takes no part in the match."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Pattern of files below the speech folder with lines `speaker value`, by column."""
    simulated_rooms: int = Field(200, ge=1)
    overlap: bool = False
    """True if train and test may share speakers, noise, music, rooms or talkers; figures are then no evidence."""
    train: Split | None = None
    test: Split | None = None
    """The test files. A corpus without train and test can only be a part of others."""
    parts: list[str] = Field(default_factory=list)
    """The corpora that make up this one."""
    files: dict[str, int | None] = Field(default_factory=dict)
    """Number of files in the published corpus, by pattern below the root; null: unknown."""
    lists: dict[str, PublishedList] = Field(default_factory=dict)
    """The trial lists published with the corpus."""
    trials: list[str] = Field(default_factory=list)
    """Names of the lists, its own or those of its parts, that score the test set; empty: all pairs."""

    @field_validator("folders")
    @classmethod
    def _roles_are_known(cls, folders: dict[str, OneOrMore]) -> dict[str, OneOrMore]:
        unknown = sorted(set(folders) - set(ROLES))
        if unknown or "speech" not in folders:
            raise ValueError(f"folders are named {', '.join(ROLES)}, and speech is required; got {sorted(folders)}")
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
                raise ValueError(f"list {name!r}: use letters, digits, '-' and '_', and not the name of a condition")
        if (self.train is None) != (self.test is None):
            raise ValueError("give both train and test, or neither for a corpus that is a part of others")
        return self


def read_corpus(path: Path, name: str) -> Corpus:
    """Read one corpus definition.

    Raises:
        ConfigError: the file or the definition is malformed.
        CorpusError: there is no corpus of that name.
    """
    definitions = load_yaml(path)
    if name not in definitions:
        known = ", ".join(sorted(map(str, definitions)))
        raise CorpusError(f"{path}: no corpus {name!r}; there are {known}. Define it there.")
    return _build_corpus(definitions, path, name)


def read_corpora(path: Path) -> dict[str, Corpus]:
    """Read all corpus definitions, by name; see `read_corpus`."""
    definitions = load_yaml(path)
    return {name: _build_corpus(definitions, path, name) for name in definitions}


def _build_corpus(definitions: Mapping[str, Any], path: Path, name: str) -> Corpus:
    return validated(Corpus, definitions[name], f"{path}: {name}")


def find_data_root(corpus: Corpus, given: str | None) -> Path:
    """Return the folder above a corpus's role folders: the given one, else $SEED_DATA, else data/corpora."""
    base = Path(os.path.expanduser(given or os.environ.get("SEED_DATA") or "data/corpora"))
    return base / corpus.root if corpus.root else base


def as_list(names: OneOrMore) -> list[str]:
    """Return one or several names as a list."""
    return [names] if isinstance(names, str) else names


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
