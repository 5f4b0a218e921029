"""Synthesised noise and music: pure functions of an integer seed, mono float32 at 16 kHz.

What training hears and what the trials hear differ in kind, not only in seed. `TRAIN` and `TEST` draw from ranges that
do not touch: spectral slopes, rates of modulation, pitches of machines, kinds of rattle, keys, tempi and timbres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

Wave = NDArray[np.float32]
_F64 = NDArray[np.float64]

SAMPLE_RATE = 16000
PEAK = 0.7
# Below this a spectral slope stands still: a brown noise would otherwise be nothing but rumble.
LOWEST_HZ = 60.0
# A timbre maps (fundamental in Hz, times since the onset in s [n], random numbers) to the sound of one note [n].
Timbre = Callable[[float, _F64, np.random.Generator], _F64]


@dataclass(frozen=True)
class SoundStyle:
    """What a family of noise and music is drawn from; pairs are (low, high).

    Args:
        slope: exponent a of the noise spectrum, power ~ f^-a.
        resonances: how many gentle peaks stand in the spectrum.
        modulation: rate of the amplitude modulation, Hz.
        sharpness: 1 gives a sinusoidal modulation, larger values give short bursts.
        hum: fundamental of a machine, Hz.
        clicks: clicks of a rattle, per second.
        click_hz: resonance of a click, Hz.
        regular: whether clicks come like clockwork or at random.
        scale: semitones of the scale above the root.
        root: MIDI note of the root.
        tempo: beats a minute.
        beats: note lengths to choose from, in beats.
        timbres: names of the instruments.
    """

    slope: tuple[float, float]
    resonances: tuple[int, int]
    modulation: tuple[float, float]
    sharpness: tuple[float, float]
    hum: tuple[float, float]
    clicks: tuple[float, float]
    click_hz: tuple[float, float]
    regular: bool
    scale: tuple[int, ...]
    root: tuple[int, int]
    tempo: tuple[float, float]
    beats: tuple[float, ...]
    timbres: tuple[str, ...]


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


def coloured_noise(seed: int, seconds: float, slope: float, peaks_hz: Sequence[float] = ()) -> Wave:
    """Stationary Gaussian noise [n] whose power falls as f^-slope above 60 Hz, with gentle peaks 9 dB high.

    Args:
        seed: of the random phases and magnitudes.
        seconds: duration.
        slope: 0 is white, 1 pink, 2 brown.
        peaks_hz: centres of the peaks, each half an octave wide.
    """
    return scale_to_peak(_coloured(np.random.default_rng(seed), count_samples(seconds), slope, peaks_hz))


def stationary_noise(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Steady noise [n], such as wind or a fan: a slope and peaks of the style."""
    return scale_to_peak(_draw_coloured(np.random.default_rng(seed), count_samples(seconds), style))


def modulated_noise(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Noise [n] that swells and fades, or comes in bursts, at a rate of the style; 20 dB between loud and soft."""
    rng = np.random.default_rng(seed)
    noise = _draw_coloured(rng, count_samples(seconds), style)
    time = np.arange(len(noise)) / SAMPLE_RATE
    rate, phase = rng.uniform(*style.modulation), rng.uniform(0, 2 * np.pi)
    # A second, slower and unrelated rate keeps the swell from being a metronome.
    wander = 0.7 * np.sin(2 * np.pi * 0.23 * rate * time + rng.uniform(0, 2 * np.pi))
    swell = (0.5 + 0.5 * np.sin(2 * np.pi * rate * time + phase + wander)) ** rng.uniform(*style.sharpness)
    return scale_to_peak(noise * (0.1 + 0.9 * swell))


def machine_noise(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """A machine [n]: harmonics of an unsteady hum, rattling clicks, and a bed of coloured noise."""
    rng = np.random.default_rng(seed)
    samples = count_samples(seconds)
    time = np.arange(samples) / SAMPLE_RATE
    fundamental = rng.uniform(*style.hum)
    drift = 0.02 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time)
    phase = 2 * np.pi * np.cumsum(fundamental * (1 + drift)) / SAMPLE_RATE
    hum = np.zeros(samples)
    for harmonic in range(1, 25):
        hum += rng.uniform(0.2, 1) / harmonic**0.8 * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    parts = ((hum, 1.0), (_clicks(rng, samples, style), 0.7), (_draw_coloured(rng, samples, style), 0.5))
    return scale_to_peak(sum((level * scale_to_unit_rms(part) for part, level in parts), np.zeros(samples)))


def make_music(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Simple instrumental music [n]: chords on the beat under a wandering tune, in a key and tempo of the style."""
    rng = np.random.default_rng(seed)
    samples = count_samples(seconds)
    root, beat = int(rng.integers(*style.root, endpoint=True)), 60 / rng.uniform(*style.tempo)
    tune_timbre, chord_timbre = (_TIMBRES[str(rng.choice(style.timbres))] for _ in range(2))
    tune, chords = np.zeros(samples), np.zeros(samples)
    start, degree = 0.0, 7
    while start < seconds:
        length = beat * float(rng.choice(style.beats))
        degree = int(np.clip(degree + rng.integers(-2, 2, endpoint=True), 3, 14))
        _add_note(tune, start, length, _pitch_hz(root, degree, style), tune_timbre, rng)
        start += length
    for start in np.arange(0, seconds, 2 * beat):
        below = int(rng.choice([0, 3, 4, 5])) - 7
        for degree in (below, below + 2, below + 4):
            _add_note(chords, float(start), 2 * beat, _pitch_hz(root, degree, style), chord_timbre, rng)
    return scale_to_peak(scale_to_unit_rms(tune) + 0.7 * scale_to_unit_rms(chords))


def count_samples(seconds: float) -> int:
    """Return the number of samples in a duration."""
    return round(seconds * SAMPLE_RATE)


def scale_to_unit_rms(wave: _F64) -> _F64:
    """The wave at a root mean square of 1; silence stays silence."""
    return np.asarray(wave / (np.sqrt(np.mean(wave**2)) + 1e-12))


def scale_to_peak(wave: _F64) -> Wave:
    """The wave as float32 with its peak at `PEAK`."""
    return np.asarray(wave * (PEAK / np.abs(wave).max()), dtype=np.float32)


def _coloured(rng: np.random.Generator, samples: int, slope: float, peaks_hz: Sequence[float]) -> _F64:
    """White noise shaped in the frequency domain: exact slope, no filter design."""
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    gain = np.maximum(frequency, LOWEST_HZ) ** (-slope / 2)
    octaves = np.log2(np.maximum(frequency, 1.0))
    for peak in peaks_hz:
        gain *= 1 + 1.8 * np.exp(-0.5 * ((octaves - np.log2(peak)) / 0.25) ** 2)
    gain[0] = 0  # no offset
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * gain, samples)


def _draw_coloured(rng: np.random.Generator, samples: int, style: SoundStyle) -> _F64:
    """Coloured noise [samples] with slope and peaks drawn from the style."""
    slope = rng.uniform(*style.slope)
    peaks = 2 ** rng.uniform(np.log2(200), np.log2(5000), rng.integers(*style.resonances, endpoint=True))
    return _coloured(rng, samples, slope, peaks.tolist())


def _clicks(rng: np.random.Generator, samples: int, style: SoundStyle) -> _F64:
    """A rattle [samples]: impulses through one damped resonance."""
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


def _pitch_hz(root: int, degree: int, style: SoundStyle) -> float:
    """Frequency of the scale's `degree`, which may be negative or beyond an octave."""
    octave, step = divmod(degree, len(style.scale))
    return float(440 * 2 ** ((root + 12 * octave + style.scale[step] - 69) / 12))


def _add_note(track: _F64, start: float, length: float, hertz: float, timbre: Timbre, rng: np.random.Generator) -> None:
    """Add one note to the track in place; it rings a little over its length and is cut at the end of the track."""
    first = round(start * SAMPLE_RATE)
    count = min(round((length + 0.15) * SAMPLE_RATE), len(track) - first)
    if count <= 0:
        return
    time = np.arange(count) / SAMPLE_RATE
    # 5 ms of fade in and 50 ms of fade out, lest an edge clicks.
    fade = np.minimum(1, time / 0.005) * np.minimum(1, (time[-1] - time) / 0.05)
    track[first : first + count] += timbre(hertz, time, rng) * fade


def _harmonics(hertz: float, time: _F64, levels: Sequence[float], vibrato: float = 0.0) -> _F64:
    """Sum of harmonics [n] below 7 kHz with these levels; `vibrato` is the depth of a 5.5 Hz wobble of the phase."""
    phase = 2 * np.pi * hertz * time + vibrato * np.sin(2 * np.pi * 5.5 * time)
    wave = np.zeros_like(time)
    for number, level in enumerate(levels, start=1):
        if number * hertz < 7000:
            wave += level * np.sin(number * phase)
    return wave


def _organ(hertz: float, time: _F64, _rng: np.random.Generator) -> _F64:
    return _harmonics(hertz, time, (1, 0.8, 0.3, 0.5, 0, 0.2, 0, 0.25))


def _pluck(hertz: float, time: _F64, rng: np.random.Generator) -> _F64:
    brightness = rng.uniform(0.6, 0.8)
    return _harmonics(hertz, time, [brightness**k for k in range(12)]) * np.exp(-time / 0.25)


def _reed(hertz: float, time: _F64, _rng: np.random.Generator) -> _F64:
    odd = [1 / number if number % 2 else 0.05 for number in range(1, 16)]
    return _harmonics(hertz, time, odd) * np.minimum(1, time / 0.04)


def _bell(hertz: float, time: _F64, rng: np.random.Generator) -> _F64:
    # Frequency modulation at a ratio that is no whole number: inharmonic, as struck metal is.
    depth = rng.uniform(2, 4) * np.exp(-time / 0.3)
    return np.sin(2 * np.pi * hertz * time + depth * np.sin(2 * np.pi * 1.41 * hertz * time)) * np.exp(-time / 0.5)


def _strings(hertz: float, time: _F64, rng: np.random.Generator) -> _F64:
    saw = [1 / number for number in range(1, 20)]
    # Three players who do not quite agree.
    section = sum(
        (_harmonics(hertz * detune, time, saw, vibrato=0.25) for detune in 1 + 0.003 * rng.standard_normal(3)),
        np.zeros_like(time),
    )
    return section * np.minimum(1, time / 0.12)


_TIMBRES: dict[str, Timbre] = {"organ": _organ, "pluck": _pluck, "reed": _reed, "bell": _bell, "strings": _strings}
