"""Corpora by name: where their speech, noise, music and rooms lie, and which files make up each set."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from pipeline.audio import duration
from pipeline.augment.recipe import Recipe, check_sources
from pipeline.augment.sources import Source
from pipeline.config import Frozen, load_yaml, validated
from pipeline.errors import CorpusError
from pipeline.files import sha256_of
from pipeline.manifest import Utterance, write_augment, write_manifest

ROLES = ("speech", "noise", "music", "rooms")
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
    """File patterns of one split, each below its role's folder; babble is a pattern of speech files."""

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
    folders: dict[str, str] = Field(default_factory=lambda: {role: role for role in ROLES})
    speaker: str | None = None
    """Regular expression on a file's path below the speech folder; its first group is the speaker. None: unknown."""
    simulated_rooms: int = Field(200, ge=1)
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
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"not a regular expression ({error})") from None
            if groups < 1:
                raise ValueError("needs a group, as in 'SPEAKER(\\d+)'")
        return pattern


@dataclass(frozen=True)
class Cut:
    """How much of a corpus to use: at most so many speakers, and utterances of each; None is all."""

    speakers: int | None = None
    utterances: int | None = None


def read_corpus(path: Path, name: str) -> Corpus:
    """Read one corpus definition.

    Raises:
        ConfigError: the file or the definition is malformed.
        CorpusError: there is no corpus of that name.
    """
    definitions = load_yaml(path)
    if name not in definitions:
        raise CorpusError(f"{path}: no corpus {name!r}; there are {', '.join(sorted(definitions))}. Define it there.")
    return validated(Corpus, definitions[name], f"{path}: {name}")


def data_root(corpus: Corpus, given: str | None) -> Path:
    """Return the folder above a corpus's role folders: as given, else $SEED_DATA, else data/corpora."""
    base = Path(given or os.environ.get("SEED_DATA") or "data/corpora").expanduser()
    return base / corpus.root if corpus.root else base


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a glob pattern, in the order of their names.

    Raises:
        CorpusError: the folder does not exist, or nothing matches.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder. Fetch the corpus, or correct its folders in data/corpora.yaml.")
    files = sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))
    if not files:
        raise CorpusError(f"{folder}: nothing matches {pattern!r}. Correct the pattern in data/corpora.yaml.")
    return files


def list_utterances(folder: Path, pattern: str, speaker: str | None) -> list[Utterance]:
    """List the speech files below `folder` that match `pattern`.

    An id is the path below the pattern's fixed part; `speaker` is a regular expression on the path below `folder`
    (see `Corpus`). Paths are given as found, so relative to the working folder if `folder` is.

    Raises:
        CorpusError: nothing matches, or the speaker cannot be read from a path.
    """
    fixed = folder.joinpath(*_fixed_part(pattern))
    utterances = []
    for path in list_files(folder, pattern):
        name, below = path.relative_to(fixed).as_posix(), path.relative_to(folder).as_posix()
        match = re.search(speaker, below) if speaker else None
        if speaker and match is None:
            raise CorpusError(
                f"{path}: the speaker pattern {speaker!r} finds nothing in {below!r}. Correct the pattern."
            )
        utterances.append(Utterance(name, path.as_posix(), match[1] if match else None))
    return utterances


def cut_down(utterances: Sequence[Utterance], cut: Cut) -> list[Utterance]:
    """Keep the first speakers and the first utterances of each, by name."""
    kept: dict[str | None, int] = {}
    result = []
    for row in utterances:
        full = cut.speakers is not None and row.speaker not in kept and len(kept) >= cut.speakers
        if full or (cut.utterances is not None and kept.get(row.speaker, 0) >= cut.utterances):
            continue
        kept[row.speaker] = kept.get(row.speaker, 0) + 1
        result.append(row)
    return result


def write_set(
    corpus: Corpus, audio: Path, split: str, name: str, recipe: Recipe, cut: Cut, out: Path, described: "Describer"
) -> int:
    """Write `<name>.csv` and `<name>.augment.csv` to `out`, and return the number of utterances.

    Talkers of a test set's babble are nobody's trial: their utterances are left out of the set.
    """
    patterns: Split = getattr(corpus, split)
    speech = audio / "speech"
    utterances = list_utterances(speech, patterns.speech, corpus.speaker)
    talkers = list_utterances(speech, patterns.babble, corpus.speaker) if patterns.babble else []
    if split == "test":
        paths, speakers = {row.path for row in talkers}, {row.speaker for row in talkers} - {None}
        utterances = [row for row in utterances if row.path not in paths and row.speaker not in speakers]
    utterances = cut_down(utterances, cut)
    if not utterances:
        raise CorpusError(f"{speech}: no utterances are left for the set {name}. Correct data/corpora.yaml.")
    kinds = recipe.kinds()
    sources: dict[str, list[Source]] = {}
    if "babble" in kinds:
        sources["babble"] = [Source(Path(row.path), row.speaker) for row in talkers]
    for kind in sorted(kinds & {"noise", "music", "rooms"}):
        pattern = getattr(patterns, kind)
        if pattern == SIMULATED:
            sources[kind] = [Source(path) for path in list_files(audio / SIMULATED, "*.wav")]
        elif pattern:
            sources[kind] = [Source(path) for path in list_files(audio / kind, pattern)]
    check_sources(recipe, sources, f"corpus {corpus.title}, {split}")
    write_manifest(out / f"{name}.csv", [described(row) for row in utterances])
    write_augment(out / f"{name}.augment.csv", described.sources(sources))
    return len(utterances)


class Describer:
    """Looks files up once each: duration and checksum, by path."""

    def __init__(self, progress: Callable[[], Any] | None = None) -> None:
        """Args: progress: called once a file."""
        self._known: dict[str, tuple[float | None, str | None]] = {}
        self._progress = progress

    def __call__(self, row: Utterance) -> Utterance:
        """Return the row with its duration and checksum; a file that cannot be read keeps neither, and fails later."""
        seconds, digest = self._look(row.path)
        return Utterance(row.utterance, row.path, row.speaker, seconds, digest)

    def sources(self, sources: dict[str, list[Source]]) -> Iterable[dict[str, str]]:
        """Yield the rows of an augmentation list."""
        for kind, files in sources.items():
            for file in files:
                path = file.path.as_posix()
                digest = self._look(path)[1] or ""
                yield {"kind": kind, "path": path, "speaker": file.speaker or "", "sha256": digest}

    def _look(self, path: str) -> tuple[float | None, str | None]:
        if path not in self._known:
            try:
                digest = sha256_of(Path(path))
            except OSError:
                digest = None
            self._known[path] = (duration(Path(path)), digest)
            if self._progress:
                self._progress()
        return self._known[path]


def _fixed_part(pattern: str) -> list[str]:
    """Return the leading components of a glob pattern that hold no wildcard, the file name left out."""
    parts = Path(pattern).parts[:-1]
    fixed = []
    for part in parts:
        if _GLOB.search(part):
            break
        fixed.append(part)
    return fixed
