"""GE2E (Wan et al., 2018, arXiv 1710.10467) as published in resemblyzer: an LSTM over windows of mel spectrogram."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE = 16_000
FFT, HOP, MELS = 400, 160, 40
WINDOW = 160
"""Frames in a window, 1.6 s."""
STEP = 77
"""Frames between windows: 1.3 windows a second, rounded as the reference rounds."""
COVERAGE = 0.75
"""Share of the last window that must be speech rather than padding, unless it is the only one."""
TARGET_RMS = 10 ** (-30 / 20)
"""Quieter speech is raised to -30 dB full scale; louder speech is left alone."""
_CHUNK = 256  # windows in one pass of the LSTM; bounds memory, and keeps the composition of batches fixed


class MelSpectrogram(nn.Module):
    """Slaney mel spectrogram of power, no logarithm: [B, S] at 16 kHz to [B, 1 + S // 160, 40]."""

    window: Tensor
    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(FFT, periodic=True), persistent=False)
        bank = torch.from_numpy(slaney_filterbank(SAMPLE_RATE, FFT, MELS)).float()
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Return [B, frames, 40] for waves [B, S]."""
        spectrum = torch.stft(
            waves, FFT, HOP, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        return (self.bank @ spectrum.abs().square()).transpose(1, 2)


class GE2E(nn.Module):
    """Mel windows of 1.6 s → LSTM(40→256, 3 layers), last state → Linear → ReLU → unit length; mean over windows."""

    dim = 256
    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        super().__init__()
        self.front_end = MelSpectrogram()
        self.lstm = nn.LSTM(MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, waves: Sequence[Tensor]) -> Tensor:
        """Return unit embeddings [B, 256] of B waves [S_i], 16 kHz in [-1, 1], of any lengths.

        A vector's windows are averaged, so silence that the reference would have trimmed counts here.
        """
        mels, counts = [], []
        for wave in waves:
            starts = window_starts(len(wave))
            padded = nn.functional.pad(raise_volume(wave), (0, max(0, (starts[-1] + WINDOW) * HOP - len(wave))))
            frames = self.front_end(padded[None])[0]
            mels.append(torch.stack([frames[start : start + WINDOW] for start in starts]))
            counts.append(len(starts))
        partial = torch.cat([self._encode(chunk) for chunk in torch.split(torch.cat(mels), _CHUNK)])
        means = torch.stack([windows.mean(dim=0) for windows in torch.split(partial, counts)])
        return nn.functional.normalize(means, dim=1)

    def _encode(self, mels: Tensor) -> Tensor:
        """Return unit embeddings [W, 256] of windows [W, 160, 40]."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def window_starts(length: int) -> list[int]:
    """Return the first frames of the windows over `length` samples, as the reference lays them."""
    frames = -(-(length + 1) // HOP)
    starts = list(range(0, max(1, frames - WINDOW + STEP + 1), STEP))
    coverage = (length - starts[-1] * HOP) / (WINDOW * HOP)
    return starts[:-1] if coverage < COVERAGE and len(starts) > 1 else starts


def raise_volume(wave: Tensor) -> Tensor:
    """Scale a quiet wave [S] up to -30 dB full scale."""
    rms = wave.square().mean().sqrt()
    return wave * (TARGET_RMS / rms).clamp(min=1.0) if rms > 0 else wave


def slaney_filterbank(sample_rate: int, fft: int, mels: int) -> NDArray[np.float64]:
    """Return triangular mel filters [mels, fft // 2 + 1] of unit area (Slaney's Auditory Toolbox, 1998).

    The mel scale is linear below 1 kHz (15 mel) and logarithmic above, where 27 mel make a factor of 6.4.
    """
    top = 15 + 27 * np.log(sample_rate / 2 / 1000) / np.log(6.4)
    mel = np.linspace(0, top, mels + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))
    bins = np.linspace(0, sample_rate / 2, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    area: NDArray[np.float64] = 2 / (edges[2:] - edges[:-2])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * area
