"""Checks for recordings that are clipped, upsampled from a narrow band, or louder than can be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.audio.reading import SAMPLE_RATE, TOO_LOUD, read_blocks
from pipeline.data.manifest import Utterance, escape_undecodable
from pipeline.errors import AudioError

CHECKED_SECONDS = 60
"""Seconds of a recording that are checked, from its start."""

FULL_SCALE, FLAT, RUN = 0.99, 2.0**-14, 3
"""Limits of clipping: a run of at least three samples beyond 0.99 that differ by no more than two 16-bit steps. The
peak of a wave that is merely loud is round, and even 100 Hz at full scale has no such run at 16 kHz."""
CLIPPED = 1e-3
"""Share of clipped samples above which a recording counts as clipped."""

BAND = 250.0
"""Width of the bands of a spectrum, Hz."""
QUIET = 60.0
"""Level below the strongest band, dB, at which a band counts as empty. Speech reaches -40 dB up to 7 kHz in its hisses.
In a band that was empty before upsampling, the rounding to 16 bits leaves less than -75 dB."""
LOUD_FRAMES = 95
"""Percentile of the frames' powers in a band. Hisses are rare, and a mean would hide them among vowels and pauses."""
NARROW = 6_000.0
"""Bandwidth in Hz below which a recording was upsampled from 12 kHz or less, or will be on reading."""

_FRAME = 0.032  # seconds


@dataclass(frozen=True)
class RecordingCheck:
    """Result of checking some recordings of a manifest; `names` are the paths of the bad ones."""

    files: int
    """Number of readable recordings."""
    unreadable: int
    clipped: int
    upsampled: int
    clipped_names: tuple[str, ...]
    upsampled_names: tuple[str, ...]
    loud: int = 0
    """Number of recordings whose peak is above `audio.reading.TOO_LOUD`."""
    loud_names: tuple[str, ...] = ()


def measure_clipping(samples: NDArray[np.float32]) -> float:
    """Return the share of samples [S, channel] (full scale 1) that lie in flat runs at full scale."""
    if len(samples) < RUN:
        return 0.0
    high = np.abs(samples) >= FULL_SCALE
    flat = high[1:] & high[:-1] & (np.abs(np.diff(samples, axis=0)) <= FLAT)
    # Three samples in a run are two flat steps in a row.
    begins = flat[1:] & flat[:-1]
    clipped = np.zeros(samples.shape, dtype=bool)
    for shift in range(RUN):
        clipped[shift : len(samples) - RUN + 1 + shift] |= begins
    return float(clipped.mean())


def measure_bandwidth(wave: NDArray[np.float32], rate: int) -> float:
    """Return the highest frequency in Hz at which a wave [S] has sound, up to 8 kHz; 0 for silence.

    The result is the upper edge of the highest 250 Hz band whose power in its loud frames (95th percentile) is within
    60 dB of the strongest band's. A resampler with a sharp cutoff leaves less than that above half of the old rate.
    Linear interpolation leaves mirror images, which count as sound here.
    """
    if rate > 2 * SAMPLE_RATE:  # bands above 8 kHz are ignored, and long frames cost memory
        wave, rate = soxr.resample(wave, rate, 2 * SAMPLE_RATE), 2 * SAMPLE_RATE
    size = int(_FRAME * rate)
    wave = np.resize(wave, max(len(wave), size))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2]
    powers = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    loud = np.percentile(powers, LOUD_FRAMES, axis=0)
    band = (np.fft.rfftfreq(size, 1 / rate) // BAND).astype(int)
    bands = np.array([loud[band == number].mean() for number in range(int(min(rate, SAMPLE_RATE) / 2 / BAND))])
    if not bands.max() > 0:
        return 0.0
    return float(BAND * (1 + np.flatnonzero(bands >= bands.max() * 10 ** (-QUIET / 10))[-1]))


def check_recordings(
    manifest: Sequence[Utterance], root: Path, files: int, seed: int, progress: Callable[[int], None] = lambda _: None
) -> RecordingCheck:
    """Check a random sample of at most `files` recordings of a manifest, at their stored sample rates.

    The manifest's paths are relative to `root`. `progress` is called with 1 after each recording.
    """
    chosen = np.random.default_rng(seed).permutation(len(manifest))[:files]
    unreadable = 0
    clipped, upsampled, loud = [], [], []
    for row in sorted(chosen.tolist()):
        path = root / manifest[row].path
        progress(1)
        try:
            samples, rate = _read_start(path)
        except AudioError:
            unreadable += 1  # the extraction has reported the reason
            continue
        name = escape_undecodable(manifest[row].path)
        if np.abs(samples).max() > TOO_LOUD:
            loud.append(name)
        elif measure_clipping(samples) > CLIPPED:
            clipped.append(name)
        if measure_bandwidth(samples.mean(axis=1), rate) < NARROW:
            upsampled.append(name)
    names = tuple(clipped), tuple(upsampled)
    counts = len(chosen) - unreadable, unreadable, len(clipped), len(upsampled)
    return RecordingCheck(*counts, *names, len(loud), tuple(loud))


def _read_start(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the first minute of a recording [S, channel] and its rate in Hz."""
    blocks: list[NDArray[np.float32]] = []
    rate = 1
    for samples, rate in read_blocks(path):
        blocks.append(samples)
        if sum(map(len, blocks)) >= CHECKED_SECONDS * rate:
            break
    return np.concatenate(blocks)[: CHECKED_SECONDS * rate], rate
