"""Noise, music, rooms and talkers on disk, behind a bounded cache."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pipeline.audio.augment.sofa import SUFFIX, read_responses
from pipeline.audio.reading import SAMPLE_RATE, Waveform, cut, exact_length, read_audio, read_piece
from pipeline.errors import AudioError, CorpusError

KINDS = ("noise", "music", "rooms", "babble")

LONG = 20 * SAMPLE_RATE
"""Samples. When the cache is full, crops of longer files are read directly; decoding a whole track of music would be
mostly wasted."""


@dataclass(frozen=True)
class Source:
    """A file to corrupt speech with; talkers have a `speaker`, and `index` selects a response of a SOFA file."""

    path: Path
    speaker: str | None = None
    index: int | None = None
    listed: str | None = None
    """The path in the augmentation list, by which traces name the file."""

    @property
    def name(self) -> str:
        """The path as listed, or else the path itself."""
        return self.listed or self.path.as_posix()


class SourcePool:
    """The sources of one recipe behind a bounded cache of decoded waves, shared by the threads of a process."""

    def __init__(self, sources: Mapping[str, Sequence[Source]], cache_seconds: float = 7200.0) -> None:
        """Args: sources by kind, in the order of draws; cache_seconds: decoded audio to keep (64 kB a second)."""
        self.sources = {kind: tuple(sources.get(kind, ())) for kind in KINDS}
        self._limit = int(cache_seconds * SAMPLE_RATE)
        self._exact: dict[Path, int | None] = {}
        self._cache: OrderedDict[Path, Waveform] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._talkers: dict[str | None, list[Source]] = {}
        self._paths = {source.name: source.path for listed in self.sources.values() for source in listed}
        for source in self.sources["babble"]:
            self._talkers.setdefault(source.speaker, []).append(source)

    def talkers(self, without: str | None, own: Path | None = None) -> list[list[Source]]:
        """Return the babble files by talker, except the speaker `without`.

        Each file without a speaker counts as one talker; the file `own` is left out among these.
        """
        named = [files for speaker, files in self._talkers.items() if speaker is not None and speaker != without]
        return named + [[file] for file in self._talkers.get(None, []) if file.path != own]

    def find(self, name: str, index: int | None = None) -> Source:
        """Return the source that a trace calls `name`, or response `index` of that SOFA file.

        Raises:
            CorpusError: there is no such source.
        """
        if name not in self._paths:
            raise CorpusError(f"{name}: is not in the augmentation list. Give the list that the store was made with.")
        return Source(self._paths[name], index=index, listed=name)

    def read(self, source: Source) -> Waveform:
        """Return a source's whole wave [S] at 16 kHz.

        Raises:
            CorpusError: the file cannot be used. Unlike a bad utterance, it would affect every row that draws it.
        """
        content = self._content(source.path)
        if source.index is None:
            return content
        if content.ndim == 2 and source.index < len(content):
            return cast(Waveform, content[source.index])
        raise CorpusError(f"augmentation source {source.path}: has no response {source.index}. Make the list again.")

    def length(self, source: Source) -> int:
        """Return the number of samples of a source at 16 kHz; raise CorpusError if it cannot be used."""
        return self._in_pieces(source.path) or len(self.read(source))

    def crop(self, source: Source, start: int, length: int) -> Waveform:
        """Return `length` samples of a source from `start` on (a shorter one is repeated), or raise CorpusError."""
        total = self._in_pieces(source.path)
        if total is None or start + length > total:
            return cut(self.read(source), start, length)
        try:
            return read_piece(source.path, start, length)
        except AudioError as error:
            raise CorpusError(f"augmentation source {error}") from error

    def _in_pieces(self, path: Path) -> int | None:
        """Return the length of a file whose crops should be read directly, or None for other files."""
        with self._lock:
            if path in self._cache or path.suffix == SUFFIX:
                return None
            room = self._limit - self._held
        if path not in self._exact:
            self._exact[path] = exact_length(path)
        total = self._exact[path]
        return total if total is not None and total > max(LONG, room) else None

    def _content(self, path: Path) -> Waveform:
        """Return a file's wave [S], or all responses [N, taps] of a SOFA file."""
        with self._lock:
            content = self._cache.get(path)
            if content is not None:
                self._cache.move_to_end(path)
                return content
        try:
            content = read_responses(path) if path.suffix == SUFFIX else read_audio(path)
        except AudioError as error:
            raise CorpusError(f"augmentation source {error}") from error
        with self._lock:
            if path not in self._cache:
                self._cache[path] = content
                self._held += content.size
            while self._held > self._limit and len(self._cache) > 1:
                self._held -= self._cache.popitem(last=False)[1].size
        return content
