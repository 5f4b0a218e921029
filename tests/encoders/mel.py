"""Mel filters and spectrograms by their definitions in double precision, as librosa defines them.

`tests/encoders/test_features.py` holds them against values of librosa, which takes 20 s to import.
"""

import numpy as np
import scipy.signal
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

HIGHEST_LINEAR = 1000.0
"""Hertz up to which Slaney's scale is linear, at 3 mel for 200 Hz; beyond, 27 mel are a factor of 6.4."""


def to_mel(hertz: ArrayLike, htk: bool) -> Floats:
    f = np.asarray(hertz, np.float64)
    if htk:
        return 2595 * np.log10(1 + f / 700)
    logarithmic = 15 + 27 * np.log(np.maximum(f, HIGHEST_LINEAR) / HIGHEST_LINEAR) / np.log(6.4)
    return np.where(f < HIGHEST_LINEAR, 3 * f / 200, logarithmic)


def to_hertz(mel: ArrayLike, htk: bool) -> Floats:
    m = np.asarray(mel, np.float64)
    if htk:
        return 700 * (10 ** (m / 2595) - 1)
    return np.where(m < 15, 200 * m / 3, HIGHEST_LINEAR * 6.4 ** ((m - 15) / 27))


def mel_filters(fft: int, mels: int, low: float, high: float, htk: bool) -> Floats:
    """Return triangles [mels, bins] at 16 kHz: of height 1 on HTK's scale, of area 1 on Slaney's."""
    corners = to_hertz(np.linspace(to_mel(low, htk), to_mel(high, htk), mels + 2), htk)
    bins = np.fft.rfftfreq(fft, 1 / 16_000)
    filters = np.stack([np.interp(bins, corners[n : n + 3], [0, 1, 0]) for n in range(mels)])
    return filters if htk else filters * (2 / (corners[2:] - corners[:-2]))[:, None]


def mel_spectrogram(
    waves: ArrayLike, filters: Floats, window: str = "hann", length: int | None = None, pad_mode: str = "constant"
) -> Floats:
    """Return the mel power [..., mels, frames] of waves [..., samples] every 10 ms, in frames around their centres.

    Args:
        waves: at 16 kHz.
        filters: [mels, bins].
        window: a name that SciPy knows.
        length: of the window, in samples; as long as the Fourier transform by default.
        pad_mode: how the ends are padded, in NumPy's words.
    """
    fft = 2 * (filters.shape[1] - 1)
    shape = scipy.signal.get_window(window, length or fft, fftbins=True)
    shape = np.pad(shape, (fft - len(shape)) // 2)
    x = np.asarray(waves, np.float64)
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(fft // 2, fft // 2)], mode=pad_mode)  # type: ignore[call-overload]
    frames = np.lib.stride_tricks.sliding_window_view(x, fft, axis=-1)[..., ::160, :]
    power = np.abs(np.fft.rfft(frames * shape)) ** 2
    return np.asarray(np.moveaxis(power @ filters.T, -1, -2))
