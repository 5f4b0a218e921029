"""Read audio files as 16 kHz mono, and cut crops from them."""

import re
from pathlib import Path

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

# libsndfile clips a WAV whose data chunk promises more than the file holds, and only says so in its log.
_SHORT_CHUNK = re.compile(r"data : (\d+) \(should be (\d+)\)")
_STREAMED = 0x7FFFFF00  # writers that cannot seek back leave a huge size in the header; that is no damage


def read_audio(path: Path, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Read a whole file as mono float32 [S] at `sample_rate` Hz; channels are averaged, rates converted by soxr.

    Raises:
        AudioError: the file is missing, not audio, empty, truncated, silent, or holds NaN or infinite samples.
    """
    if path.exists() and not path.is_file():
        raise AudioError(f"{path}: is no regular file. Remove it from the manifest.")  # a pipe would never end
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate, log = file.frames, file.samplerate, file.extra_info
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        raise AudioError(f"{path}: {_why_unreadable(path, error)}") from error
    short = _SHORT_CHUNK.search(log)
    if short and int(short[2]) < int(short[1]) < _STREAMED:
        raise AudioError(f"{path}: truncated, holds {short[2]} of {short[1]} bytes of audio. Copy the file again.")
    if len(samples) < promised:
        raise AudioError(f"{path}: truncated, holds {len(samples)} of {promised} samples. Copy the file again.")
    if len(samples) == 0:
        raise AudioError(f"{path}: empty, holds no samples. Remove it from the manifest.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds NaN or infinite samples. Export the recording again.")
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    if len(mono) == 0:
        raise AudioError(f"{path}: shorter than one sample at {sample_rate} Hz. Remove it from the manifest.")
    if np.abs(mono).max() < AUDIBLE:
        why = ", its channels cancel out" if np.abs(samples).max() >= AUDIBLE and samples.shape[1] > 1 else ""
        raise AudioError(f"{path}: silent{why or ', every sample is zero'}. Remove it from the manifest.")
    return np.ascontiguousarray(mono, dtype=np.float32)


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


def duration(path: Path) -> float | None:
    """Return the length of an audio file in seconds from its header, or None where that cannot be read."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError):
        return None
    return float(info.frames / info.samplerate)


def _why_unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file. Check the audio root, or make the manifest again."
    if path.stat().st_size == 0:
        return "empty file (0 bytes). Copy the file again."
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    return f"cannot be read as audio ({reason}). Convert it to WAV or FLAC, or remove it from the manifest."
