"""Sizes in the headers of WAV files, which are wrong in streams and after crashes, and what is read of such files.

One rule decides: the audio is as long as the header promises, but never longer than the file. A size that means
"unknown" promises all that the file holds. A file that lacks more than a few of the promised bytes is truncated.
"""

import io
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AudioError

FEW = 128
"""Number of missing bytes that are no truncation. Some writers count the header, or a byte of padding, as audio."""

UNKNOWN = ((0x7EFF0000, 0x7F00FFFF), (0x7FFF0000, 0x80000000), (0xFFFF0000, 0xFFFFFFFF), (2**62, 2**64))
"""Lowest and highest sizes that mean "unknown". So does 0, unless other chunks follow.

A writer that cannot seek leaves 0x7ffff000 (SoX, eSpeak), 0x80000000 (arecord), 0xffffffff (FFmpeg) or -1 (RF64),
rounded down to whole samples of all channels, or less the header; in AIFF files, SoX leaves 0x7f000000.
"""

_FORMS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
_MAX_CHUNKS = 1_000  # a file of more chunks is left to libsndfile
_SMALL = 0xFFFFFFFF
_TAG = 128  # bytes of an ID3v1 tag, which some programs append to any file


@dataclass(frozen=True)
class WavData:
    """The audio in a WAV file: where it starts, in bytes, and its size as decided by the rule."""

    start: int
    size: int
    warning: str | None
    """The disagreement between header and file, if there is one."""
    patches: Mapping[int, bytes]
    """Bytes by offset with which the header agrees with `size`; empty if it does as it is."""


def read_wav_header(path: Path) -> WavData | None:
    """Return where the audio of a WAV, RF64 or BW64 file is, or None if the file is of another kind.

    Raises:
        AudioError: the file is truncated.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        form, total = file.read(12), os.fstat(file.fileno()).st_size
        if form[:4] not in _FORMS or form[8:] != b"WAVE":
            return None
        order, is_long, place, size64, at_ds64 = _FORMS[form[:4]], form[:4] in (b"RF64", b"BW64"), 12, 0, None
        for _ in range(_MAX_CHUNKS):
            file.seek(place)
            head = file.read(8)
            if len(head) < 8:
                return None
            name, size = head[:4], int(struct.unpack(order + "I", head[4:])[0])
            if name == b"data":
                break
            if name == b"ds64" and is_long:
                sizes = file.read(16)
                at_ds64, size64 = place, struct.unpack("<Q", sizes[8:])[0] if len(sizes) == 16 else 0
            place += 8 + size + size % 2
        else:
            return None
        start = place + 8
        promised = size64 if is_long and size == _SMALL else size
        chunks_follow = _is_chunks(file, start + promised, total, order)
    if promised == 0 and chunks_follow:  # an empty file
        decided, warning = 0, None
    else:
        decided, warning = decide_size(path, promised, total - start)
    unread = total - start - decided
    if decided == promised and unread > 1 and not chunks_follow:
        warning = f"its header promises {decided:,} bytes of audio, but {unread:,} bytes follow, which are not read"
    patches = {}
    # libsndfile does not know BW64, and goes by the chunk ds64, even if that contradicts the size of the data.
    if decided != promised or form[:4] == b"BW64" or (is_long and decided != size64):
        patches[start - 4] = struct.pack(order + "I", min(decided, _SMALL))
        if is_long:
            patches[0] = b"RIFF"
        if at_ds64 is not None:
            patches[at_ds64] = b"JUNK"
    return WavData(start, decided, warning, patches)


def decide_size(path: Path, promised: int, held: int) -> tuple[int, str | None]:
    """Return the number of bytes of audio to read where the header promises some and the file holds others.

    The second value is a warning where they differ. It does not name the file.

    Raises:
        AudioError: the file is truncated.
    """
    if promised == 0 or (promised > held and any(low <= promised <= high for low, high in UNKNOWN)):
        if held == 0:
            return 0, None
        return held, f"its header gives no length (size {promised:#x}), so all {held:,} bytes to its end are read"
    if promised <= held:
        return promised, None
    if promised - held > FEW:
        raise AudioError(f"{path}: truncated, holds {held} of {promised} bytes of audio. Copy the file again.")
    return held, f"its header promises {promised:,} bytes of audio, but it holds {held:,}, which are read"


def _is_chunks(file: io.BufferedReader, place: int, total: int, order: str) -> bool:
    """Return whether the rest of a file consists of chunks or an ID3v1 tag, with or without a byte of padding."""
    if total - place in (_TAG, _TAG + 1):
        file.seek(total - _TAG)
        if file.read(3) == b"TAG":
            return True
    return any(_is_chain(file, start, total, order) for start in {place, place + place % 2})


def _is_chain(file: io.BufferedReader, place: int, total: int, order: str) -> bool:
    if place >= total:
        return False
    for _ in range(_MAX_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or not all(0x20 <= byte < 0x7F for byte in head[:4]):
            return False
        size = struct.unpack(order + "I", head[4:])[0]
        if place + 8 + size > total:
            return False
        place += 8 + size + size % 2
        if place >= total:
            return True
    return False


class PatchedFile(io.RawIOBase):
    """A file whose header is corrected while it is read, and which ends with its audio."""

    def __init__(self, path: Path, data: WavData) -> None:
        """Open the file at `path`."""
        super().__init__()
        self._file, self._data, self._end = path.open("rb", buffering=0), data, data.start + data.size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in bytes, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        return self._file.seek(base + offset)

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # typeshed's buffer has no slices
        """Read into a buffer, and return the number of bytes."""
        at, view = self._file.tell(), memoryview(buffer).cast("B")
        count = self._file.readinto(view[: max(0, self._end - at)]) or 0
        for place, content in self._data.patches.items():
            for index, byte in enumerate(content, start=place - at):
                if 0 <= index < count:
                    view[index] = byte
        return count

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()
        super().close()
