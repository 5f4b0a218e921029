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

from pipeline.errors import AudioError

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16_000
"""Hz. Every encoder of ours listens at this rate."""

AUDIBLE = 2.0**-23
"""Full scale is 1; below the last bit of 24-bit audio there is only silence."""

RATES = (1_000, 1_000_000)
"""Lowest and highest sample rate, Hz, that a header is believed; one hertz would blow a second up to hours."""

LONGEST = 3 * 3600
"""Seconds. A few bytes of FLAC can stand for days of silence, which would fill the memory."""

_BLOCK = 2**20  # samples decoded at a time, over all channels
_UNKNOWN = 2**48  # frames; a stream that was never closed leaves its length open, which libsndfile tells as a huge one

# libsndfile clips a chunk that promises more than the file holds, and only says so in its log. In order: WAV, AIFF, AU,
# W64, RF64. (A WAV's own "RIFF" size is often wrong in files that are whole.)
_SHORT_CHUNK = re.compile(r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
_STREAMED = 0x7FFFFF00  # writers that cannot seek back leave a huge size in the header; that is no damage
_PAGE = 27 + 255 + 255 * 255  # bytes of the longest Ogg page
_BITS = re.compile(r"Bit Width\s*: (\d+)")


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped
    """A file read from first to last, without the seeks in between, which fail where the length is open."""

    def seekable(self) -> bool:
        return False


def read_audio(path: Path, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Read a whole file as mono float32 [S] at `sample_rate` Hz; channels are averaged, rates converted by soxr.

    Raises:
        AudioError: the file is missing, not audio, empty, truncated, silent, endless, or holds NaN or infinite samples.
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
        why = ", its channels cancel out" if peak >= AUDIBLE and channels > 1 else ""
        raise AudioError(f"{path}: silent{why or ', every sample is zero'}. Remove it from the manifest.")
    return np.ascontiguousarray(wave, dtype=np.float32)


def read_blocks(path: Path) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield a file piece by piece as it is: samples [S, channel], full scale 1, and their rate in Hz.

    Memory goes by what the file holds and not by what its header promises, which may be anything.

    Raises:
        AudioError: see `read_audio`; what is amiss in the middle shows when it is come to.
    """
    try:
        if path.exists() and not path.is_file():
            raise AudioError(f"{path}: is no regular file. Remove it from the manifest.")  # a pipe would never end
        with _Stream(os.fsencode(path)) as file:  # as bytes, since a name need not be UTF-8
            _check_header(path, file)
            yield from _decoded(path, file)
    except AudioError:
        raise
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(path, error)}") from error


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    if file.format == "RAW":  # libsndfile takes any bytes for audio if only the file is named .au, .snd, .gsm or .vox
        raise AudioError(f"{path}: has no header that says how to read it. Convert it to WAV or FLAC.")
    bits = _BITS.search(file.extra_info)
    if file.subtype == "PCM_U8" and bits and int(bits[1]) < 8:  # it takes every byte for a sample
        raise AudioError(f"{path}: has {bits[1]}-bit samples, which cannot be read. Convert it to WAV or FLAC.")
    low, high = RATES
    if not low <= file.samplerate <= high:
        raise AudioError(
            f"{path}: claims {file.samplerate} Hz, outside {low} to {high}. Mend its header, or export it again."
        )
    short = _SHORT_CHUNK.search(file.extra_info)
    if short and int(short[2]) < int(short[1]) < _STREAMED:
        raise AudioError(f"{path}: truncated, holds {short[2]} of {short[1]} bytes of audio. Copy the file again.")
    if file.format == "OGG" and _ends_within_a_page(path):
        raise AudioError(f"{path}: truncated, ends within an Ogg page. Copy the file again.")


def _ends_within_a_page(path: Path) -> bool:
    """Whether an Ogg file is cut off; libsndfile drops what is left of the last page without a word."""
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
    """Return the length of a file in samples if any piece of it can be read exactly; None where it is read as a whole.

    That is so of uncompressed and of FLAC audio at `sample_rate`; lossy codecs do not find their place to the sample.
    """
    info = _info(path)
    if info is None:
        return None
    exact = info.format in ("WAV", "WAVEX", "FLAC", "AIFF", "AU") and info.subtype.startswith(("PCM_", "FLOAT"))
    return int(info.frames) if exact and info.samplerate == sample_rate and 0 < info.frames < _UNKNOWN else None


def read_piece(path: Path, start: int, length: int) -> Waveform:
    """Read `length` samples from `start` of a file of `exact_length`, as mono float32 as `read_audio` does.

    Raises:
        AudioError: the file is missing, not audio, truncated, or holds NaN or infinite samples in that piece.
    """
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            _check_header(path, file)
            file.seek(start)
            samples = file.read(length, dtype="float32", always_2d=True)
    except AudioError:
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
    """Return where to cut `length` of `total` samples at random; 0, and nothing drawn, where there are not enough."""
    return 0 if total < length else int(rng.integers(total - length + 1))


def even_starts(total: int, count: int, length: int | None) -> list[int]:
    """Return `count` evenly spaced starts of crops of `length` in `total` samples; None means the whole wave."""
    if length is None or total < length:
        return [0] * count
    return [int(start) for start in np.linspace(0, total - length, count)]


def cut(wave: Waveform, start: int, length: int | None) -> Waveform:
    """Cut `length` samples from `start` on; a shorter wave is repeated to fill the crop; None means the whole wave."""
    if length is None:
        return wave
    return np.resize(wave, length) if len(wave) < length else wave[start : start + length]


def random_crop(wave: Waveform, length: int, rng: np.random.Generator) -> Waveform:
    """Cut `length` samples at a random start; a shorter wave is repeated to fill the crop."""
    return cut(wave, random_start(len(wave), length, rng), length)


def even_crops(wave: Waveform, count: int, length: int | None) -> list[Waveform]:
    """Cut `count` crops of `length` samples at evenly spaced starts, first to last; None means the whole wave."""
    return [cut(wave, start, length) for start in even_starts(len(wave), count, length)]


def read_duration(path: Path) -> float | None:
    """Return the length of an audio file in seconds from its header, or None where that cannot be read."""
    info = _info(path)
    return float(info.frames / info.samplerate) if info is not None and info.frames < _UNKNOWN else None


def _info(path: Path) -> Any:
    """Return what libsndfile says of a file's header, None if it cannot read it."""
    try:
        return soundfile.info(os.fsencode(path)) if path.is_file() else None
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError):
        return None


def _why_unreadable(path: Path, error: Exception) -> str:
    try:
        if path.stat().st_size == 0:
            return "empty file (0 bytes). Copy the file again."
        with path.open("rb"):
            pass  # libsndfile says only "System error" of a file that may not be read
    except (FileNotFoundError, NotADirectoryError):
        return "no such file. Check the audio root, or make the manifest again."
    except (OSError, ValueError) as closed:
        why = getattr(closed, "strerror", None) or closed
        return f"cannot be opened ({why}). Mend it, or remove it from the manifest."
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    if "possibly a pipe" in reason:  # said of an MP3 without a single frame, too
        reason = "Format not recognised"
    return f"cannot be read as audio ({reason}). Convert it to WAV or FLAC, or remove it from the manifest."
