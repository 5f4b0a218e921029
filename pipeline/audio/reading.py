"""Read audio files as 16 kHz mono, and cut crops from them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline.errors import AudioError, ResourceError
from pipeline.utils.shortage import SCARCE, raise_shortage

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16_000
"""The sample rate of all encoders, Hz."""

AUDIBLE = 2.0**-23
"""The smallest peak that is not silence: the last bit of 24-bit audio, at full scale 1."""

RATES = (1_000, 1_000_000)
"""Lowest and highest credible sample rate of a header, Hz; at 1 Hz, a second would be resampled to hours."""

LONGEST = 3 * 3600
"""Maximum length in seconds. A few bytes of FLAC can encode days of silence, which would fill the memory."""

_BLOCK = 2**20  # samples decoded at a time, over all channels
_UNKNOWN = 2**48  # frames; libsndfile reports a huge length for a stream that was never closed

# libsndfile clips a chunk that is longer than the file, and reports it only in its log. In order: WAV, AIFF, AU, W64,
# RF64. (The "RIFF" size of a WAV is often wrong in complete files.)
_SHORT_CHUNK = re.compile(r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
_STREAMED = 0x7FFFFF00  # writers that cannot seek leave a huge size in the header, which is no damage
_PAGE = 27 + 255 + 255 * 255  # bytes of the longest Ogg page
_BITS = re.compile(r"Bit Width\s*: (\d+)")


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped
    """A file read from start to end without seeking, which fails if the length is unknown."""

    def seekable(self) -> bool:
        return False


def read_audio(path: Path, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Read a whole file as mono float32 [S] at `sample_rate` Hz; channels are averaged, rates converted by soxr.

    Raises:
        AudioError: the file is missing, not audio, empty, truncated, silent, too long, or has NaN or infinite samples.
    """
    mono: list[Waveform] = []
    rate, channels, peak = 0, 0, 0.0
    for samples, rate in read_blocks(path):  # noqa: B007
        channels, peak = samples.shape[1], max(peak, float(np.abs(samples).max()))
        mono.append(samples.mean(axis=1) if channels > 1 else samples[:, 0])
    wave = mono[0] if len(mono) == 1 else np.concatenate(mono)
    if rate != sample_rate:
        wave = soxr.resample(wave, rate, sample_rate)
    if len(wave) == 0:
        raise AudioError(f"{path}: shorter than one sample at {sample_rate} Hz. Remove it from the manifest.")
    if np.abs(wave).max() < AUDIBLE:
        reason = "its channels cancel out" if peak >= AUDIBLE and channels > 1 else "every sample is zero"
        raise AudioError(f"{path}: silent, {reason}. Remove it from the manifest.")
    return np.ascontiguousarray(wave, dtype=np.float32)


def read_blocks(path: Path) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield blocks of a file: samples [S, channel] at full scale 1, and their rate in Hz.

    Memory depends on the content of the file, not on the length in its header, which may be wrong.

    Raises:
        AudioError: see `read_audio`; damage in the middle is found when its block is read.
    """
    try:
        if path.exists() and not path.is_file():
            raise AudioError(f"{path}: is not a regular file. Remove it from the manifest.")  # a pipe would never end
        with _Stream(os.fsencode(path)) as file:  # as bytes, because a name need not be UTF-8
            _check_header(path, file)
            yield from _decoded(path, file)
    except (AudioError, ResourceError):
        raise
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(path, error)}") from error


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    if file.format == "RAW":  # libsndfile reads any bytes as audio in a file named .au, .snd, .gsm or .vox
        raise AudioError(f"{path}: has no header that describes its format. Convert it to WAV or FLAC.")
    bits = _BITS.search(file.extra_info)
    if file.subtype == "PCM_U8" and bits and int(bits[1]) < 8:  # libsndfile reads each byte as a sample
        raise AudioError(f"{path}: has {bits[1]}-bit samples, which cannot be read. Convert it to WAV or FLAC.")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        outside = f"claims {file.samplerate} Hz, outside {RATES[0]} to {RATES[1]}"
        raise AudioError(f"{path}: {outside}. Correct its header, or export it again.")
    short = _SHORT_CHUNK.search(file.extra_info)
    if short and int(short[2]) < int(short[1]) < _STREAMED:
        raise AudioError(f"{path}: truncated, holds {short[2]} of {short[1]} bytes of audio. Copy the file again.")
    if file.format == "OGG" and _ends_within_a_page(path):
        raise AudioError(f"{path}: truncated, ends within an Ogg page. Copy the file again.")


def _ends_within_a_page(path: Path) -> bool:
    """Return whether an Ogg file is cut off; libsndfile silently drops an incomplete last page."""
    with path.open("rb") as file:
        file.seek(-min(_PAGE, os.fstat(file.fileno()).st_size), os.SEEK_END)
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _decoded(path: Path, file: soundfile.SoundFile) -> Iterator[tuple[NDArray[np.float32], int]]:
    rate, promised, held = file.samplerate, file.frames, 0
    block = min(_BLOCK // file.channels, promised or _BLOCK)
    while len(samples := file.read(block, dtype="float32", always_2d=True)):
        held += len(samples)
        if held > LONGEST * rate:
            raise AudioError(f"{path}: longer than {LONGEST // 3600} hours. Cut it into utterances.")
        if not np.isfinite(samples).all():
            raise AudioError(f"{path}: holds NaN or infinite samples. Export the recording again.")
        yield samples, rate
    if held < promised < _UNKNOWN:
        raise AudioError(f"{path}: truncated, holds {held} of {promised} samples. Copy the file again.")
    if held == 0:
        raise AudioError(f"{path}: empty, holds no samples. Remove it from the manifest.")


def exact_length(path: Path, sample_rate: int = SAMPLE_RATE) -> int | None:
    """Return the length of a file in samples if pieces of it can be read exactly, else None.

    Uncompressed and FLAC audio at `sample_rate` can; lossy codecs do not seek to the exact sample.
    """
    if (info := _info(path)) is None:
        return None
    exact = info.format in ("WAV", "WAVEX", "FLAC", "AIFF", "AU") and info.subtype.startswith(("PCM_", "FLOAT"))
    return int(info.frames) if exact and info.samplerate == sample_rate and 0 < info.frames < _UNKNOWN else None


def read_piece(path: Path, start: int, length: int) -> Waveform:
    """Read `length` samples from `start` of a file that has an `exact_length`, as mono float32 like `read_audio`.

    Raises:
        AudioError: the file is missing, not audio, truncated, or holds NaN or infinite samples in that piece.
    """
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            _check_header(path, file)
            file.seek(start)
            samples = file.read(length, dtype="float32", always_2d=True)
    except (AudioError, ResourceError):
        raise
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(path, error)}") from error
    if len(samples) < length:
        raise AudioError(f"{path}: truncated, ends at sample {start + len(samples)}. Copy the file again.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds NaN or infinite samples. Export the recording again.")
    piece: Waveform = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    return np.ascontiguousarray(piece)


def random_start(total: int, length: int, rng: np.random.Generator) -> int:
    """Draw the start of a crop of `length` in `total` samples; return 0 without drawing if there are not enough."""
    return 0 if total < length else int(rng.integers(total - length + 1))


def even_starts(total: int, count: int, length: int | None) -> list[int]:
    """Return `count` evenly spaced starts of crops of `length` in `total` samples; None: the whole wave."""
    if length is None or total < length:
        return [0] * count
    return [int(start) for start in np.linspace(0, total - length, count)]


def cut(wave: Waveform, start: int, length: int | None) -> Waveform:
    """Cut `length` samples from `start` on; repeat a shorter wave to fill the crop; None: the whole wave."""
    if length is None:
        return wave
    return np.resize(wave, length) if len(wave) < length else wave[start : start + length]


def read_duration(path: Path) -> float | None:
    """Return the length of an audio file in seconds from its header, or None if it cannot be read."""
    info = _info(path)
    return float(info.frames / info.samplerate) if info is not None and info.frames < _UNKNOWN else None


def _info(path: Path) -> Any:
    """Return the header of a file as libsndfile reads it, or None if it cannot; raise ResourceError for no handles."""
    try:
        return soundfile.info(os.fsencode(path)) if path.is_file() else None
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
        _why_unreadable(path, error)
        return None


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
