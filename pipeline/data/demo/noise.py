"""Synthesised noise: pure functions of an integer seed, mono float32 at 16 kHz.

Noise and music of training and trials differ in kind, not only in seed. The styles `TRAIN` and `TEST` draw from
disjoint ranges: spectral slopes, rates of modulation, pitches of machines, kinds of rattle, keys, tempi and timbres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

Wave = NDArray[np.float32]
_F64 = NDArray[np.float64]

SAMPLE_RATE = 16000
PEAK = 0.7
# Spectra are flat below this frequency; brown noise would otherwise be all rumble.
LOWEST_HZ = 60.0


@dataclass(frozen=True)
class SoundStyle:
    """Ranges that a family of noise and music is drawn from; pairs are (low, high)."""

    slope: tuple[float, float]  # exponent a of the noise spectrum, power ~ f^-a
    resonances: tuple[int, int]  # number of gentle peaks in the spectrum
    modulation: tuple[float, float]  # rate of the amplitude modulation, Hz
    sharpness: tuple[float, float]  # 1 gives a sinusoidal modulation, larger values give short bursts
    hum: tuple[float, float]  # fundamental of a machine, Hz
    clicks: tuple[float, float]  # clicks of a rattle, per second
    click_hz: tuple[float, float]  # resonance of a click, Hz
    regular: bool  # true for evenly spaced clicks, false for random ones
    scale: tuple[int, ...]  # semitones of the scale above the root
    root: tuple[int, int]  # MIDI note of the root
    tempo: tuple[float, float]  # beats a minute
    beats: tuple[float, ...]  # note lengths to choose from, in beats
    timbres: tuple[str, ...]  # names of the instruments


TRAIN = SoundStyle(
    slope=(0.0, 1.1),
    resonances=(0, 2),
    modulation=(0.4, 4.0),
    sharpness=(1.0, 2.5),
    hum=(45, 85),
    clicks=(2, 7),
    click_hz=(900, 2500),
    regular=False,
    scale=(0, 2, 4, 5, 7, 9, 11),
    root=(53, 60),
    tempo=(95, 125),
    beats=(0.5, 1.0),
    timbres=("organ", "pluck", "reed"),
)
TEST = SoundStyle(
    slope=(1.4, 2.0),
    resonances=(3, 5),
    modulation=(6.0, 12.0),
    sharpness=(3.0, 6.0),
    hum=(105, 180),
    clicks=(9, 18),
    click_hz=(3000, 6000),
    regular=True,
    scale=(0, 2, 3, 5, 7, 8, 10),
    root=(61, 67),
    tempo=(60, 85),
    beats=(0.25, 0.5, 1.5),
    timbres=("bell", "strings"),
)


def stationary_noise(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Return steady noise [n], such as wind or a fan, with a slope and peaks of the style."""
    return scale_to_peak(_draw_coloured(np.random.default_rng(seed), count_samples(seconds), style))


def modulated_noise(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Return noise [n] that swells and fades, or comes in bursts, at a rate of the style, with a range of 20 dB."""
    rng = np.random.default_rng(seed)
    noise = _draw_coloured(rng, count_samples(seconds), style)
    time = np.arange(len(noise)) / SAMPLE_RATE
    rate, phase = rng.uniform(*style.modulation), rng.uniform(0, 2 * np.pi)
    # A second, slower and unrelated rate makes the swell irregular.
    wander = 0.7 * np.sin(2 * np.pi * 0.23 * rate * time + rng.uniform(0, 2 * np.pi))
    swell = (0.5 + 0.5 * np.sin(2 * np.pi * rate * time + phase + wander)) ** rng.uniform(*style.sharpness)
    return scale_to_peak(noise * (0.1 + 0.9 * swell))


def machine_noise(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Return the noise of a machine [n]: harmonics of an unsteady hum, rattling clicks, and coloured noise."""
    rng = np.random.default_rng(seed)
    samples = count_samples(seconds)
    time = np.arange(samples) / SAMPLE_RATE
    fundamental = rng.uniform(*style.hum)
    drift = 0.02 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time)
    phase = 2 * np.pi * np.cumsum(fundamental * (1 + drift)) / SAMPLE_RATE
    hum = np.zeros(samples)
    for harmonic in range(1, 25):
        hum += rng.uniform(0.2, 1) / harmonic**0.8 * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    layers = ((hum, 1.0), (_draw_clicks(rng, samples, style), 0.7), (_draw_coloured(rng, samples, style), 0.5))
    return scale_to_peak(sum((level * scale_to_rms(layer) for layer, level in layers), np.zeros(samples)))


def count_samples(seconds: float) -> int:
    """Return the number of samples in a duration."""
    return round(seconds * SAMPLE_RATE)


def scale_to_rms(wave: _F64) -> _F64:
    """Scale a wave to a root mean square of 1; silence stays silent."""
    return np.asarray(wave / (np.sqrt(np.mean(wave**2)) + 1e-12))


def scale_to_peak(wave: _F64) -> Wave:
    """Scale a wave to the peak `PEAK`, as float32."""
    return np.asarray(wave * (PEAK / np.abs(wave).max()), dtype=np.float32)


def shape_noise(rng: np.random.Generator, samples: int, slope: float, peaks_hz: Sequence[float]) -> _F64:
    """Return Gaussian noise [samples] whose power falls as f^-slope above 60 Hz, with gentle peaks 9 dB high."""
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    gain = np.maximum(frequency, LOWEST_HZ) ** (-slope / 2)
    octaves = np.log2(np.maximum(frequency, 1.0))
    for peak in peaks_hz:
        gain *= 1 + 1.8 * np.exp(-0.5 * ((octaves - np.log2(peak)) / 0.25) ** 2)
    gain[0] = 0  # no offset
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * gain, samples)


def _draw_coloured(rng: np.random.Generator, samples: int, style: SoundStyle) -> _F64:
    slope = rng.uniform(*style.slope)
    peaks = 2 ** rng.uniform(np.log2(200), np.log2(5000), rng.integers(*style.resonances, endpoint=True))
    return shape_noise(rng, samples, slope, peaks.tolist())


def _draw_clicks(rng: np.random.Generator, samples: int, style: SoundStyle) -> _F64:
    """Draw a rattle [samples]: impulses through one damped resonance."""
    rate = rng.uniform(*style.clicks)
    if style.regular:
        times = np.arange(0, samples, SAMPLE_RATE / rate).astype(int)
    else:
        times = np.sort(rng.integers(0, samples, max(1, round(rate * samples / SAMPLE_RATE))))
    impulses = np.zeros(samples)
    impulses[times] = rng.uniform(0.3, 1, len(times))
    angle = 2 * np.pi * rng.uniform(*style.click_hz) / SAMPLE_RATE
    radius = np.exp(-1 / (rng.uniform(0.004, 0.015) * SAMPLE_RATE))
    ringing: _F64 = sosfilt([[1, 0, 0, 1, -2 * radius * np.cos(angle), radius**2]], impulses)
    return ringing
