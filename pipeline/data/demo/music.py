"""Synthesised music: pure functions of an integer seed, mono float32 at 16 kHz, in the styles of `noise`."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.demo.noise import SAMPLE_RATE, TRAIN, SoundStyle, Wave, count_samples, scale_to_peak, scale_to_rms

_F64 = NDArray[np.float64]

Timbre = Callable[[float, _F64, np.random.Generator], _F64]
"""Map from fundamental in Hz, times since the onset in s [n] and random numbers to the sound of one note [n]."""


def make_music(seed: int, seconds: float, style: SoundStyle = TRAIN) -> Wave:
    """Return simple instrumental music [n]: chords under a wandering tune, in a key and tempo of the style."""
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
    return scale_to_peak(scale_to_rms(tune) + 0.7 * scale_to_rms(chords))


def _pitch_hz(root: int, degree: int, style: SoundStyle) -> float:
    """Return the frequency of a degree of the scale, which may be negative or beyond an octave."""
    octave, step = divmod(degree, len(style.scale))
    return float(440 * 2 ** ((root + 12 * octave + style.scale[step] - 69) / 12))


def _add_note(track: _F64, start: float, length: float, hertz: float, timbre: Timbre, rng: np.random.Generator) -> None:
    """Add one note to the track in place; it rings slightly longer than its length."""
    first = round(start * SAMPLE_RATE)
    count = min(round((length + 0.15) * SAMPLE_RATE), len(track) - first)
    if count <= 0:
        return
    time = np.arange(count) / SAMPLE_RATE
    # Fade in over 5 ms and out over 50 ms, so that the edges do not click.
    fade = np.minimum(1, time / 0.005) * np.minimum(1, (time[-1] - time) / 0.05)
    track[first : first + count] += timbre(hertz, time, rng) * fade


def _harmonics(hertz: float, time: _F64, levels: Sequence[float], vibrato: float = 0.0) -> _F64:
    """Return the sum of harmonics [n] below 7 kHz; `vibrato` is the depth of a 5.5 Hz modulation of the phase."""
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
    # Frequency modulation at a ratio that is not an integer is inharmonic, like struck metal.
    depth = rng.uniform(2, 4) * np.exp(-time / 0.3)
    return np.sin(2 * np.pi * hertz * time + depth * np.sin(2 * np.pi * 1.41 * hertz * time)) * np.exp(-time / 0.5)


def _strings(hertz: float, time: _F64, rng: np.random.Generator) -> _F64:
    saw = [1 / number for number in range(1, 20)]
    # Three players, slightly out of tune with each other.
    section = sum(
        (_harmonics(hertz * detune, time, saw, vibrato=0.25) for detune in 1 + 0.003 * rng.standard_normal(3)),
        np.zeros_like(time),
    )
    return section * np.minimum(1, time / 0.12)


_TIMBRES: dict[str, Timbre] = {"organ": _organ, "pluck": _pluck, "reed": _reed, "bell": _bell, "strings": _strings}
