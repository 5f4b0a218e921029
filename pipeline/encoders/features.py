"""Front-ends of the published encoders, from waves [B, S] at 16 kHz in [-1, 1] to features."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE = 16_000

Window = Literal["hann", "hamming"]
Scale = Literal["htk", "slaney"]


class PreEmphasis(nn.Module):
    """y[n] = x[n] - 0.97 x[n - 1], with a reflection before the first sample: [B, S] to [B, S]."""

    flipped_filter: Tensor

    def __init__(self, coefficient: float = 0.97) -> None:
        super().__init__()
        self.register_buffer("flipped_filter", torch.tensor([[[-coefficient, 1.0]]]))

    def forward(self, waves: Tensor) -> Tensor:
        """Return [B, S] for waves [B, S], S > 1."""
        before, now = self.flipped_filter[0, 0].unbind()
        shifted = torch.cat([waves[:, 1:2], waves[:, :-1]], dim=1)
        return now * waves + before * shifted


class MelSpectrogram(nn.Module):
    """Mel power spectrogram without logarithm: [B, S] to [B, mels, 1 + S // hop].

    Frames are centred on multiples of `hop`. The buffers have torchaudio's names, because published checkpoints contain
    them.
    """

    def __init__(
        self,
        fft: int,
        window_length: int,
        hop: int,
        mels: int,
        low: float = 0.0,
        high: float = SAMPLE_RATE / 2,
        window: Window = "hann",
        scale: Scale = "htk",
        pad_mode: Literal["reflect", "constant"] = "reflect",
        persistent: bool = True,
    ) -> None:
        """Build the window and the filters.

        Args:
            fft: number of points of the transform.
            window_length: number of samples of the window, centred in the transform.
            hop: number of samples between frames.
            mels: number of bins.
            low: lower edge of the first bin, Hz.
            high: upper edge of the last bin, Hz.
            window: kind of the periodic window.
            scale: `htk` with filters of unit height, or `slaney` with filters of unit area.
            pad_mode: padding at both ends.
            persistent: true if window and filters are part of the state dict.
        """
        super().__init__()
        self.fft, self.window_length, self.hop, self.pad_mode = fft, window_length, hop, pad_mode
        shape = torch.hann_window if window == "hann" else torch.hamming_window
        filters = {"htk": htk_filterbank, "slaney": slaney_filterbank}[scale](fft, mels, low, high)
        self.spectrogram = _Buffer("window", shape(window_length, periodic=True), persistent)
        self.mel_scale = _Buffer("fb", torch.from_numpy(filters.T.copy()).float(), persistent)

    def forward(self, waves: Tensor) -> Tensor:
        """Return [B, mels, frames]; with reflection, waves must be longer than half of `fft`."""
        window, pad_mode = self.spectrogram.value, self.pad_mode  # frames are centred by default
        spectrum = torch.stft(
            waves, self.fft, self.hop, self.window_length, window, pad_mode=pad_mode, return_complex=True
        )
        return self.mel_scale.value.T @ _power(spectrum)


class KaldiFbank(nn.Module):
    """Log mel filter bank energies as Kaldi computes them, without dither: [B, S] to [B, frames, mels].

    Windows of 25 ms every 10 ms, none beyond the edges (`snip-edges`); removal of each window's mean, pre-emphasis
    (0.97) and windowing; 512-point power spectrum; triangles on Kaldi's mel scale; logarithm floored at float32's
    epsilon.
    """

    LENGTH, HOP, FFT = 400, 160, 512

    window: Tensor
    bank: Tensor

    def __init__(
        self,
        mels: int = 80,
        low: float = 20.0,
        high: float = SAMPLE_RATE / 2,
        window: Literal["povey", "hamming"] = "povey",
        scale: float = 1.0,
        remove_mean: bool = True,
    ) -> None:
        """Build the window and the filters.

        Args:
            mels: number of bins.
            low: lower edge of the first bin, Hz.
            high: upper edge of the last bin, Hz.
            window: `povey` (Kaldi's default, a Hann window to the power of 0.85) or `hamming`, both symmetric.
            scale: factor for the samples; 32768 for encoders trained on 16-bit integers.
            remove_mean: true to subtract the mean of every bin over the utterance.
        """
        super().__init__()
        self.scale, self.remove_mean = scale, remove_mean
        turn = 2 * math.pi * torch.arange(self.LENGTH, dtype=torch.float64) / (self.LENGTH - 1)
        shape = (0.5 - 0.5 * turn.cos()) ** 0.85 if window == "povey" else 0.54 - 0.46 * turn.cos()
        self.register_buffer("window", shape.float(), persistent=False)
        bank = kaldi_filterbank(self.FFT, mels, low, high).T.copy()
        self.register_buffer("bank", torch.from_numpy(bank).float(), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Return [B, 1 + (S - 400) // 160, mels]; waves need 400 samples."""
        frames = (waves * self.scale if self.scale != 1 else waves).unfold(1, self.LENGTH, self.HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        # The first sample of a frame is its own left neighbour.
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        spectrum = torch.fft.rfft((frames - 0.97 * before) * self.window, n=self.FFT)
        energies = (_power(spectrum) @ self.bank).clamp(min=torch.finfo(torch.float32).eps).log()
        return energies - energies.mean(dim=1, keepdim=True) if self.remove_mean else energies


def htk_filterbank(fft: int, mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Return triangular filters of unit height [mels, fft // 2 + 1], edges evenly spaced on HTK's mel scale."""
    first, last = (2595 * math.log10(1 + edge / 700) for edge in (low, high))
    edges = 700 * (10 ** (np.linspace(first, last, mels + 2) / 2595) - 1)
    return _triangles(edges, _frequencies(fft))


def slaney_filterbank(fft: int, mels: int, low: float = 0.0, high: float = SAMPLE_RATE / 2) -> NDArray[np.float64]:
    """Return triangular mel filters [mels, fft // 2 + 1] of unit area (Slaney's Auditory Toolbox, 1998).

    The mel scale is linear below 1 kHz (15 mel) and logarithmic above, where 27 mel make a factor of 6.4.
    """

    def mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    points = np.linspace(mel(low), mel(high), mels + 2)
    edges = np.where(points < 15, points * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (points - 15)))
    area: NDArray[np.float64] = 2 / (edges[2:] - edges[:-2])[:, None]
    return _triangles(edges, _frequencies(fft)) * area


def kaldi_filterbank(fft: int, mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Return Kaldi's filters [mels, fft // 2 + 1]: triangles of unit height on the mel axis, zero at Nyquist."""
    edges = np.linspace(_kaldi(low), _kaldi(high), mels + 2)
    bank = _triangles(edges, _kaldi(_frequencies(fft)))
    bank[:, -1] = 0
    return bank


def _triangles(edges: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the heights [M, P] at P points of M triangles, where triangle m spans edges m, m + 1, m + 2."""
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (points - left) / (centre - left), (right - points) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling))


def _frequencies(fft: int) -> NDArray[np.float64]:
    return np.linspace(0, SAMPLE_RATE / 2, fft // 2 + 1)


def _kaldi(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log1p(np.asarray(hertz) / 700))


def _power(spectrum: Tensor) -> Tensor:
    # Faster than abs().square(), whose square root costs more than the transform, and than a sum over an axis of two.
    return spectrum.real.square() + spectrum.imag.square()


class _Buffer(nn.Module):
    """One tensor under a given name, so that state dicts match the published ones."""

    def __init__(self, name: str, value: Tensor, persistent: bool) -> None:
        super().__init__()
        self._name = name
        self.register_buffer(name, value, persistent=persistent)

    @property
    def value(self) -> Tensor:
        return self.get_buffer(self._name)
