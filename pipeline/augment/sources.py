"""Noise, music, rooms and talkers on disk, read once each and kept while there is room."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.audio import Waveform, read_audio
from pipeline.augment.sofa import SUFFIX, read_responses
from pipeline.errors import AudioError, CorpusError

KINDS = ("noise", "music", "rooms", "babble")


@dataclass(frozen=True)
class Source:
    """One file to corrupt speech with; `speaker` is known for talkers, `index` picks a response out of a SOFA file."""

    path: Path
    speaker: str | None = None
    index: int | None = None
    listed: str | None = None
    """Its path as the augmentation list has it; traces name it so, wherever the files lie."""

    @property
    def name(self) -> str:
        """The path as listed, or else as it is."""
        return self.listed or self.path.as_posix()


class SourcePool:
    """The sources of one recipe behind a bounded cache of decoded waves, shared by the threads of a process."""

    def __init__(self, sources: Mapping[str, Sequence[Source]], cache_seconds: float = 7200.0) -> None:
        """Args: sources by kind, in the order drawn by; cache_seconds: decoded audio to keep (64 kB a second)."""
        self.sources = {kind: tuple(sources.get(kind, ())) for kind in KINDS}
        self._limit = int(cache_seconds * 16_000)
        self._cache: OrderedDict[Path, Waveform] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._talkers: dict[str | None, list[Source]] = {}
        self._paths = {source.name: source.path for listed in self.sources.values() for source in listed}
        for source in self.sources["babble"]:
            self._talkers.setdefault(source.speaker, []).append(source)

    def talkers(self, without: str | None, own: Path | None = None) -> list[list[Source]]:
        """Return the babble files by talker; files of nobody known are a talker each.

        Args:
            without: a speaker to leave out.
            own: a file to leave out among those of nobody known.
        """
        named = [files for speaker, files in self._talkers.items() if speaker is not None and speaker != without]
        return named + [[file] for file in self._talkers.get(None, []) if file.path != own]

    def read(self, source: Source) -> Waveform:
        """Return a source's wave [S] at 16 kHz.

        Raises:
            CorpusError: the file cannot be used; unlike a bad utterance, it would spoil every row that draws it.
        """
        content = self._content(source.path)
        if source.index is None:
            return content
        if content.ndim != 2 or source.index >= len(content):
            raise CorpusError(
                f"augmentation source {source.path}: has no response {source.index}. Make the list again."
            )
        response: Waveform = content[source.index]
        return response

    def find(self, name: str, index: int | None = None) -> Waveform:
        """Return the wave [S] of the source that a trace calls `name`, or response `index` of that SOFA file.

        Raises:
            CorpusError: there is no such source, or it cannot be used.
        """
        if name not in self._paths:
            raise CorpusError(f"{name}: is not in the augmentation list. Give the one that the store was made with.")
        return self.read(Source(self._paths[name], index=index))

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
                _, dropped = self._cache.popitem(last=False)
                self._held -= dropped.size
        return content
