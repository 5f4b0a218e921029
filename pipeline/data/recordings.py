"""Recordings that are worse than their format says: clipped ones, and narrow-band ones stored at a higher rate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.audio.reading import SAMPLE_RATE, read_blocks
from pipeline.data.manifest import Utterance, escape_undecodable
from pipeline.errors import AudioError

CHECKED_SECONDS = 60
"""Seconds of a recording that are looked at, from its start."""

FULL_SCALE, FLAT, RUN = 0.99, 2.0**-14, 3
"""A sample is clipped in a run of at least three beyond 0.99 that differ by no more than two 16-bit steps: the peak of
a wave that is merely loud is round, and even 100 Hz at full scale has no such run at 16 kHz."""
CLIPPED = 1e-3
"""Share of clipped samples from which on a recording counts as clipped."""

BAND = 250.0
"""Hz. Spectra are looked at in bands of this width."""
QUIET = 60.0
"""dB below the strongest band at which a band counts as empty. Speech reaches -40 dB up to 7 kHz in its hisses; where
there was nothing before upsampling, the rounding to 16 bits leaves less than -75 dB."""
LOUD_FRAMES = 95
"""Percentile of the frames' powers in a band: hisses are rare, and the mean would bury them under vowels and pauses."""
NARROW = 6_000.0
"""Hz. Recordings with less bandwidth were upsampled, from 12 kHz or less, or will be on reading."""

_FRAME = 0.032  # seconds


@dataclass(frozen=True)
class RecordingCheck:
    """What a look at some recordings of a manifest found; `names` are the paths of the bad ones."""

    files: int
    """Recordings that could be read."""
    unreadable: int
    clipped: int
    upsampled: int
    clipped_names: tuple[str, ...]
    upsampled_names: tuple[str, ...]


def measure_clipping(samples: NDArray[np.float32]) -> float:
    """Return the share of samples [S, channel] (full scale 1) that stand in flat runs at full scale."""
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
    """Return up to which frequency in Hz a wave [S] holds sound, looked for up to 8 kHz; 0 for silence.

    It is the upper edge of the highest band of 250 Hz whose power in its loud frames (95th percentile) is within 60 dB
    of the strongest band's. A resampler that cuts sharply, as all good ones do, leaves less than that above the old
    rate's half; linear interpolation leaves mirror images, which this takes for sound.
    """
    if rate > 2 * SAMPLE_RATE:  # nothing above 8 kHz counts, and long frames cost memory
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
    manifest: Sequence[Utterance],
    root: Path,
    files: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> RecordingCheck:
    """Look at a random sample of at most `files` recordings of a manifest, at the rates they are stored at.

    Args:
        manifest: the utterances.
        root: folder the manifest's paths are relative to.
        files: recordings to look at.
        seed: of the sample.
        progress: called with 1 after each recording.
    """
    chosen = np.random.default_rng(seed).permutation(len(manifest))[:files]
    unreadable = 0
    clipped, upsampled = [], []
    for row in sorted(chosen.tolist()):
        path = root / manifest[row].path
        progress(1)
        try:
            samples, rate = _read_start(path)
        except AudioError:
            unreadable += 1  # the extraction has said why
            continue
        if measure_clipping(samples) > CLIPPED:
            clipped.append(escape_undecodable(manifest[row].path))
        if measure_bandwidth(samples.mean(axis=1), rate) < NARROW:
            upsampled.append(escape_undecodable(manifest[row].path))
    return RecordingCheck(
        len(chosen) - unreadable, unreadable, len(clipped), len(upsampled), tuple(clipped), tuple(upsampled)
    )


def _read_start(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the first minute of a recording [S, channel] and its rate in Hz."""
    parts: list[NDArray[np.float32]] = []
    rate = 1
    for samples, rate in read_blocks(path):
        parts.append(samples)
        if sum(map(len, parts)) >= CHECKED_SECONDS * rate:
            break
    return np.concatenate(parts)[: CHECKED_SECONDS * rate], rate
