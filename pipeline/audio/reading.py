"""Read audio files as 16 kHz mono, and cut crops from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.audio.audio_file import open_audio
from pipeline.errors import AudioError

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16_000
"""The sample rate of all encoders, Hz."""

AUDIBLE = 2.0**-23
"""The smallest peak that is not silence: the last bit of 24-bit audio, at full scale 1."""

TOO_LOUD = 4.0
"""The highest credible peak, 12 dB above full scale. Beyond it, integers were probably stored as floats."""

LONGEST = 3 * 3600
"""Maximum length in seconds. A few bytes of FLAC can encode days of silence, which would fill the memory."""

_BLOCK = 2**20  # samples decoded at a time, over all channels
_UNKNOWN = 2**48  # frames; libsndfile reports a huge length for a stream that was never closed


@dataclass(frozen=True)
class Recording:
    """A whole file as a wave [S] of 16 kHz mono, with a warning if its header or its level cannot be right."""

    wave: Waveform
    warning: str | None


def read_audio(path: Path, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Read a whole file as mono float32 [S] at `sample_rate` Hz, see `read_recording`."""
    return read_recording(path, sample_rate).wave


def read_recording(path: Path, sample_rate: int = SAMPLE_RATE, normalize: bool = False) -> Recording:
    """Read a whole file as mono float32 [S] at `sample_rate` Hz; channels are averaged, rates converted by soxr.

    If `normalize`, a file with a peak above TOO_LOUD is scaled to a peak of 1.

    Raises:
        AudioError: the file is missing, not audio, empty, truncated, silent, too long, or has NaN or infinite samples.
    """
    mono: list[Waveform] = []
    rate, channels, peak = 0, 0, 0.0
    with open_audio(path, seekable=False) as (file, warning):
        for samples, rate in _decoded(path, file):  # noqa: B007
            channels, peak = samples.shape[1], max(peak, float(np.abs(samples).max()))
            mono.append(samples.mean(axis=1) if channels > 1 else samples[:, 0])
    wave = mono[0] if len(mono) == 1 else np.concatenate(mono)
    if rate != sample_rate:
        wave = soxr.resample(wave, rate, sample_rate)
    if len(wave) == 0:
        raise AudioError(f"{path}: shorter than one sample at {sample_rate} Hz. Remove it from the manifest.")
    loudest = np.abs(wave).max()
    if loudest < AUDIBLE:
        reason = "its channels cancel out" if peak >= AUDIBLE and channels > 1 else "every sample is zero"
        raise AudioError(f"{path}: silent, {reason}. Remove it from the manifest.")
    if is_scaled := normalize and peak > TOO_LOUD:
        wave = wave / loudest
    return Recording(np.ascontiguousarray(wave, dtype=np.float32), _join(warning, describe_level(peak, is_scaled)))


def describe_level(peak: float, is_scaled: bool = False) -> str | None:
    """Return a warning if a peak is beyond TOO_LOUD. It does not name the file."""
    if peak <= TOO_LOUD:
        return None
    return f"its peak is {peak:.4g}, where full scale is 1{'; scaled to a peak of 1' if is_scaled else ''}"


def inspect_audio(path: Path) -> tuple[float | None, str | None]:
    """Return the length of a file in seconds, None if it cannot be read, and its warning as in `read_recording`.

    Only files of floating-point samples are decoded, because other files cannot be too loud.
    """
    try:
        with open_audio(path, seekable=False) as (file, warning):
            peak = _find_peak(path, file) if file.subtype in ("FLOAT", "DOUBLE") else 0.0
            return _duration(file), _join(warning, describe_level(peak))
    except AudioError:
        return None, None


def _find_peak(path: Path, file: Any) -> float:
    """Return the peak of an open file, 0 if it cannot be decoded."""
    try:
        return max(float(np.abs(samples).max()) for samples, _ in _decoded(path, file))
    except AudioError:
        return 0.0


def _join(*warnings: str | None) -> str | None:
    return "; ".join(filter(None, warnings)) or None


def read_blocks(path: Path) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield blocks of a file: samples [S, channel] at full scale 1, and their rate in Hz.

    Memory depends on the content of the file, not on the length in its header, which may be wrong.

    Raises:
        AudioError: see `read_audio`; damage in the middle is found when its block is read.
    """
    with open_audio(path, seekable=False) as (file, _):
        yield from _decoded(path, file)


def _decoded(path: Path, file: Any) -> Iterator[tuple[NDArray[np.float32], int]]:
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
    try:
        with open_audio(path) as (file, _):
            exact = file.format in ("WAV", "WAVEX", "FLAC", "AIFF", "AU") and file.subtype.startswith(("PCM_", "FLOAT"))
            known = file.samplerate == sample_rate and 0 < file.frames < _UNKNOWN
            return int(file.frames) if exact and known else None
    except AudioError:
        return None


def read_piece(path: Path, start: int, length: int) -> Waveform:
    """Read `length` samples from `start` of a file that has an `exact_length`, as mono float32 like `read_audio`.

    Raises:
        AudioError: the file is missing, not audio, truncated, or holds NaN or infinite samples in that piece.
    """
    with open_audio(path) as (file, _):
        file.seek(start)
        samples = file.read(length, dtype="float32", always_2d=True)
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
    try:
        with open_audio(path) as (file, _):
            return _duration(file)
    except AudioError:
        return None


def _duration(file: Any) -> float | None:
    return float(file.frames / file.samplerate) if file.frames < _UNKNOWN else None
