"""GE2E of resemblyzer (Wan et al., 2018, arXiv 1710.10467): an LSTM over windows of a mel spectrogram."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.encoders.encoder import Network, stack_equal_lengths
from pipeline.encoders.family import Family
from pipeline.encoders.features import MelSpectrogram

FFT, HOP, MELS = 400, 160, 40
WINDOW = 160
"""Number of frames in a window, 1.6 s."""
STEP = 77
"""Number of frames between windows: 1.3 windows per second, rounded like the reference."""
COVERAGE = 0.75
"""Minimum share of speech in the last window, the rest being padding, unless it is the only one."""
TARGET_RMS = 10 ** (-30 / 20)
"""Level of -30 dB full scale, to which quieter speech is raised; louder speech is unchanged."""
_CHUNK = 256  # windows in one pass of the LSTM; bounds memory and fixes the composition of batches


class GE2E(Network):
    """Mel windows of 1.6 s → LSTM(40→256, 3 layers), last state → Linear → ReLU → unit length; mean over windows.

    Unlike the reference, this does not trim silence.
    """

    dim = 256
    min_samples = FFT

    def __init__(self) -> None:
        super().__init__()
        self.front_end = MelSpectrogram(FFT, FFT, HOP, MELS, scale="slaney", pad_mode="constant", persistent=False)
        self.lstm = nn.LSTM(MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def features(self, waves: Tensor) -> Tensor:
        """Return mel windows [B, W, 160, 40] of waves [B, S], without logarithm."""
        length = waves.shape[1]
        starts = window_starts(length)
        padded = nn.functional.pad(raise_volume(waves), (0, max(0, (starts[-1] + WINDOW) * HOP - length)))
        frames = self.front_end(padded).transpose(1, 2)
        return torch.stack([frames[:, start : start + WINDOW] for start in starts], dim=1)

    def embed(self, features: Tensor) -> Tensor:
        """Return unit embeddings [B, 256] of windows [B, W, 160, 40]."""
        return self._mean_over_windows(features.flatten(0, 1), [features.shape[1]] * len(features))

    def encode(self, waves: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return unit embeddings [B, 256] of waves [S_i] on `device`; windows of all waves share batches."""
        windows: dict[int, Tensor] = {}
        for indices, stack in stack_equal_lengths(waves, device, self.sample_rate):
            windows.update(zip(indices, self.exact_features(stack), strict=True))
        ordered = [windows[index] for index in range(len(waves))]
        return self._mean_over_windows(torch.cat(ordered), list(map(len, ordered)))

    def _mean_over_windows(self, windows: Tensor, counts: list[int]) -> Tensor:
        """Return unit embeddings [B, 256] of windows [sum of counts, 160, 40]."""
        partial = torch.cat([self._encode(chunk) for chunk in torch.split(windows, _CHUNK)])
        means = torch.stack([chunk.mean(dim=0) for chunk in torch.split(partial, counts)])
        return nn.functional.normalize(means, dim=1)

    def _encode(self, mels: Tensor) -> Tensor:
        """Return unit embeddings [W, 256] of windows [W, 160, 40]."""
        if mels.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):  # processors without AVX-512 lack an LSTM in half precision
                _, (hidden, _) = self.lstm(mels.float())
        else:
            _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def window_starts(length: int) -> list[int]:
    """Return the first frames of the reference's windows over `length` samples."""
    frames = -(-(length + 1) // HOP)
    starts = list(range(0, max(1, frames - WINDOW + STEP + 1), STEP))
    coverage = (length - starts[-1] * HOP) / (WINDOW * HOP)
    return starts[:-1] if coverage < COVERAGE and len(starts) > 1 else starts


def raise_volume(waves: Tensor) -> Tensor:
    """Scale each quiet wave of [B, S] up to -30 dB full scale."""
    rms = waves.square().mean(dim=1, keepdim=True).sqrt()
    gain = torch.where(rms > 0, TARGET_RMS / rms, 1.0)
    return waves * gain.clamp(min=1.0)


FAMILIES = (
    Family(
        name="ge2e",
        title="GE2E, LSTM, 256-d",
        checkpoints="resemblyzer",
        build=lambda state: GE2E(),
        signature=("lstm.weight_ih_l0", "lstm.weight_ih_l2", "linear.weight"),
        dim=256,
        crops_per_second=145.0,
        weights="pypi://resemblyzer==0.1.4/resemblyzer/pretrained.pt",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        licence="Apache-2.0",
    ),
)
