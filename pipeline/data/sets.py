"""Sets of a corpus: a manifest of utterances, and a list of the sounds to mix into them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.audio.augment.recipe import Recipe, check_sources
from pipeline.audio.augment.sofa import SUFFIX, count_responses
from pipeline.audio.augment.sources import Source
from pipeline.audio.reading import inspect_audio
from pipeline.data import manifest
from pipeline.data.corpora import SIMULATED, Corpus, Split
from pipeline.data.corpus_files import list_files, list_utterances
from pipeline.data.manifest import Utterance, escape_undecodable
from pipeline.errors import CorpusError
from pipeline.utils.atomic import sha256_of
from pipeline.utils.shortage import SCARCE, raise_shortage


@dataclass(frozen=True)
class SetLimits:
    """Maximum number of speakers of a set, and of utterances of each speaker; None is all."""

    speakers: int | None = None
    utterances: int | None = None


def limit_utterances(utterances: Sequence[Utterance], limits: SetLimits) -> list[Utterance]:
    """Keep the first speakers and the first utterances of each speaker."""
    kept: dict[str | None, int] = {}
    result = []
    for row in utterances:
        full = limits.speakers is not None and row.speaker not in kept and len(kept) >= limits.speakers
        if full or (limits.utterances is not None and kept.get(row.speaker, 0) >= limits.utterances):
            continue
        kept[row.speaker] = kept.get(row.speaker, 0) + 1
        result.append(row)
    return result


def write_set(
    corpus: Corpus,
    audio: Path,
    split: str,
    name: str,
    recipe: Recipe,
    limits: SetLimits,
    out: Path,
    files: "FileInspector",
) -> int:
    """Write `<name>.csv` and `<name>.augment.csv` to `out`, and return the number of utterances.

    A test set leaves out the talkers of its babble.
    """
    patterns: Split | None = getattr(corpus, split)
    if patterns is None:
        raise CorpusError(
            f"{corpus.title}: has no {split} files because it is a part of other corpora. Name one with train and test."
        )
    speech = audio / "speech"
    utterances = list_utterances(speech, patterns.speech, corpus.speaker)
    # In a separate babble folder, such as MUSAN's, every file is a talker, and none of them is in a trial.
    babble, pattern = (audio / "babble", None) if "babble" in corpus.folders else (speech, corpus.speaker)
    talkers = list_utterances(babble, patterns.babble, pattern) if patterns.babble else []
    if split == "test":
        paths, speakers = {row.path for row in talkers}, {row.speaker for row in talkers} - {None}
        utterances = [row for row in utterances if row.path not in paths and row.speaker not in speakers]
    utterances = limit_utterances(utterances, limits)
    labels = read_labels(corpus.labels, speech)
    if not utterances:
        raise CorpusError(f"{speech}: no utterances are left for set {name}. Correct data/corpora.yaml.")
    kinds = recipe.source_kinds()
    sources: dict[str, list[Source]] = {}
    if "babble" in kinds:
        sources["babble"] = [Source(Path(row.path), row.speaker) for row in talkers]
    for kind in sorted(kinds & {"noise", "music", "rooms"}):
        pattern = getattr(patterns, kind)
        if pattern == SIMULATED:
            sources[kind] = [Source(path) for path in list_files(audio / SIMULATED, "*.wav")]
        elif pattern:
            sources[kind] = [source for path in list_files(audio / kind, pattern) for source in _list_sources(path)]
    check_sources(recipe, sources, f"corpus {corpus.title}, {split}")
    manifest.write_manifest(out / f"{name}.csv", [_add_labels(files(row), labels) for row in utterances])
    manifest.write_augment(out / f"{name}.augment.csv", files.describe_sources(sources))
    return len(utterances)


def read_labels(patterns: Mapping[str, str], speech: Path) -> dict[str, dict[str, str]]:
    """Read the labels of speakers, by column and speaker.

    Raises:
        CorpusError: nothing matches, or a line has another format.
    """
    labels: dict[str, dict[str, str]] = {}
    for column, pattern in patterns.items():
        for path in list_files(speech, pattern):
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                fields = line.split()
                if len(fields) not in (0, 2) or (fields and column == "age" and not fields[1].isdecimal()):
                    raise CorpusError(f"{path}:{number}: expected `speaker {column}`, found {line[:80]!r}.")
                if fields:
                    labels.setdefault(column, {})[fields[0]] = fields[1]
    return labels


def check_disjoint(folder: Path, train: str, tests: Sequence[str]) -> None:
    """Raise CorpusError if any test set shares speakers, noise, music, rooms or talkers with the training set.

    The lists of the sets lie in `folder`.
    """
    trained = _read_contents(folder, train)
    for name in tests:
        for kind, tested in _read_contents(folder, name).items():
            shared = sorted(trained.get(kind, set()) & tested)
            if shared:
                raise CorpusError(
                    f"sets {train} and {name} share {len(shared)} {kind}, first: {shared[0]}. Figures on speakers and"
                    " sounds of the training are no evidence: correct the patterns in data/corpora.yaml, or set"
                    " overlap: true there."
                )


def _read_contents(folder: Path, name: str) -> dict[str, set[str]]:
    """Return the speakers and utterances of a set, and its sources by kind, identified by content."""
    rows = manifest.read_manifest(folder / f"{name}.csv")
    contents = {"speakers": {row.speaker for row in rows if row.speaker}}
    contents["utterances"] = {row.sha256 or row.path for row in rows}
    for row in manifest.read_columns(folder / f"{name}.augment.csv", manifest.AUGMENT_COLUMNS):
        kind = "talkers' recordings" if row["kind"] == "babble" else f"{row['kind']} files"
        contents.setdefault(kind, set()).add(row["sha256"] or row["path"])
    return contents


class FileInspector:
    """Duration, checksum and warning of files, each of which is read once."""

    def __init__(self, progress: Callable[[], Any] | None = None) -> None:
        """Args: progress: called once for each file."""
        self.warnings: dict[str, str] = {}
        """Warnings by path, of utterances and of sources."""
        self._known: dict[str, tuple[float | None, str | None]] = {}
        self._progress = progress

    def __call__(self, row: Utterance) -> Utterance:
        """Return the row with its duration and checksum; an unreadable file gets neither, and fails later."""
        seconds, digest = self._inspect(row.path)
        return replace(row, seconds=seconds, sha256=digest, warning=self.warnings.get(escape_undecodable(row.path)))

    def describe_sources(self, sources: dict[str, list[Source]]) -> Iterable[dict[str, str]]:
        """Yield the rows of an augmentation list."""
        for kind, files in sources.items():
            for file in files:
                path = file.path.as_posix()
                digest = self._inspect(path)[1] or ""
                index = "" if file.index is None else str(file.index)
                yield {"kind": kind, "path": path, "speaker": file.speaker or "", "index": index, "sha256": digest}

    def _inspect(self, path: str) -> tuple[float | None, str | None]:
        if path not in self._known:
            try:
                digest = sha256_of(Path(path)) if Path(path).is_file() else None  # a pipe would never end
            except OSError as error:
                raise_shortage(error, path, SCARCE)
                digest = None
            seconds, warning = inspect_audio(Path(path))
            self._known[path] = seconds, digest
            if warning:
                self.warnings[escape_undecodable(path)] = warning
            if self._progress:
                self._progress()
        return self._known[path]


def _add_labels(row: Utterance, labels: Mapping[str, Mapping[str, str]]) -> Utterance:
    gender, age = (labels.get(column, {}).get(row.speaker or "") for column in ("gender", "age"))
    return replace(row, gender=gender, age=None if age is None else float(age))


def _list_sources(path: Path) -> list[Source]:
    """Return a file as one source, or a SOFA file as one source for each of its responses."""
    if path.suffix != SUFFIX:
        return [Source(path)]
    return [Source(path, index=index) for index in range(count_responses(path))]
