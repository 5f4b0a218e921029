"""Open audio files: the one place that decides which files are readable, and how much of them."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import soundfile

from pipeline.audio.wav_header import PatchedFile, decide_size, read_wav_header
from pipeline.errors import AudioError, ResourceError
from pipeline.utils.shortage import SCARCE, raise_shortage

RATES = (1_000, 1_000_000)
"""Lowest and highest credible sample rate of a header, Hz; at 1 Hz, a second would be resampled to hours."""

# libsndfile clips a chunk that is longer than the file, and reports it only in its log. In order: WAV, AIFF, AU, W64,
# RF64. (The "RIFF" size of a WAV is often wrong in complete files.)
_SHORT_CHUNK = re.compile(r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
_PAGE = 27 + 255 + 255 * 255  # bytes of the longest Ogg page
_BITS = re.compile(r"Bit Width\s*: (\d+)")


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped
    """A file read from start to end without seeking, which fails if the length is unknown."""

    def seekable(self) -> bool:
        return False


@contextmanager
def open_audio(path: Path, seekable: bool = True) -> Iterator[tuple[Any, str | None]]:
    """Yield an open `soundfile.SoundFile`, and a warning if its header and its size disagree.

    `seekable=False` also reads files of unknown length. Errors of libsndfile in the body of the `with` statement are
    raised as AudioError, too.

    Raises:
        AudioError: the file is missing, not audio, or truncated.
        ResourceError: no file can be read, for lack of handles or memory.
    """
    try:
        if path.exists() and not path.is_file():
            raise AudioError(f"{path}: is not a regular file. Remove it from the manifest.")  # a pipe would never end
        with ExitStack() as stack:
            wav = read_wav_header(path)
            # As bytes, because a name need not be UTF-8.
            content = stack.enter_context(PatchedFile(path, wav)) if wav and wav.patches else os.fsencode(path)
            file = stack.enter_context((soundfile.SoundFile if seekable else _Stream)(content))
            _check_format(path, file)
            yield file, wav.warning if wav else _check_size(path, file)
    except (AudioError, ResourceError):
        raise
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(path, error)}") from error


def _check_format(path: Path, file: soundfile.SoundFile) -> None:
    if file.format == "RAW":  # libsndfile reads any bytes as audio in a file named .au, .snd, .gsm or .vox
        raise AudioError(f"{path}: has no header that describes its format. Convert it to WAV or FLAC.")
    bits = _BITS.search(file.extra_info)
    if file.subtype == "PCM_U8" and bits and int(bits[1]) < 8:  # libsndfile reads each byte as a sample
        raise AudioError(f"{path}: has {bits[1]}-bit samples, which cannot be read. Convert it to WAV or FLAC.")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        outside = f"claims {file.samplerate} Hz, outside {RATES[0]} to {RATES[1]}"
        raise AudioError(f"{path}: {outside}. Correct its header, or export it again.")


def _check_size(path: Path, file: soundfile.SoundFile) -> str | None:
    """Return a warning if the header of a file other than WAV promises more bytes than the file holds."""
    if short := _SHORT_CHUNK.search(file.extra_info):
        return decide_size(path, int(short[1]), int(short[2]))[1]
    if file.format == "OGG" and _ends_within_a_page(path):
        raise AudioError(f"{path}: truncated, ends within an Ogg page. Copy the file again.")
    return None


def _ends_within_a_page(path: Path) -> bool:
    """Return whether an Ogg file is cut off; libsndfile silently drops an incomplete last page."""
    with path.open("rb") as file:
        file.seek(-min(_PAGE, os.fstat(file.fileno()).st_size), os.SEEK_END)
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _why_unreadable(path: Path, error: Exception) -> str:
    """Return why a file cannot be read; raise ResourceError if no file can, for lack of handles or memory."""
    raise_shortage(error, path, SCARCE)
    try:
        if path.stat().st_size == 0:
            return "empty file (0 bytes). Copy the file again."
        with path.open("rb"):
            pass  # libsndfile reports only "System error" without read permission
    except (FileNotFoundError, NotADirectoryError):
        return "no such file. Check the audio root, or make the manifest again."
    except (OSError, ValueError) as failure:
        raise_shortage(failure, path, SCARCE)
        reason = getattr(failure, "strerror", None) or failure
        return f"cannot be opened ({reason}). Repair it, or remove it from the manifest."
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    if "possibly a pipe" in reason:  # also reported for an MP3 without a single frame
        reason = "Format not recognised"
    return f"cannot be read as audio ({reason}). Convert it to WAV or FLAC, or remove it from the manifest."
