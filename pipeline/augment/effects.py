"""What happens to clean speech: added noise at an SNR, babble, a room. Pure functions of arrays."""

from collections.abc import Sequence

import numpy as np

from pipeline.audio import Waveform

_FLOOR = 1e-12  # mean power of an inaudible signal; keeps a silent crop from dividing by zero


def power(wave: Waveform) -> float:
    """Return the mean square of a wave [S]."""
    return float(np.mean(np.square(wave, dtype=np.float64)))


def add_at_snr(speech: Waveform, noise: Waveform, snr: float) -> Waveform:
    """Add noise [S] to speech [S] so that 10 log10(P_speech / P_noise) is `snr` dB over the whole length."""
    gain = np.sqrt(power(speech) / max(power(noise), _FLOOR) / 10 ** (snr / 10))
    return (speech + np.float32(gain) * noise).astype(np.float32)


def babble(crops: Sequence[Waveform]) -> Waveform:
    """Sum crops [S] of several talkers, each brought to the same power."""
    mixed: Waveform = np.sum([crop / np.sqrt(max(power(crop), _FLOOR)) for crop in crops], axis=0).astype(np.float32)
    return mixed


def reverberate(speech: Waveform, response: Waveform) -> Waveform:
    """Convolve speech [S] with a room impulse response [taps], keeping its length, timing and power.

    What comes before the strongest tap (the direct sound) is delay, not room, and is cut off.
    """
    from scipy.signal import oaconvolve  # half a second to import

    direct = response[int(np.argmax(np.abs(response))) :]
    wet = oaconvolve(speech, direct)[: len(speech)]
    scaled: Waveform = (wet * np.sqrt(power(speech) / max(power(wet), _FLOOR))).astype(np.float32)
    return scaled
