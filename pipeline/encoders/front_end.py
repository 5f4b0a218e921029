"""Front-ends declared in params.yaml, for files that contain only a network."""

from torch import Tensor, nn

from pipeline.config.encoder import Input, KaldiFbankInput, LogMelInput, WaveformInput
from pipeline.encoders.features import KaldiFbank, MelSpectrogram, PreEmphasis
from pipeline.errors import ConfigError

DEVIATION_FLOOR = 1e-5
"""Constant added to variances before a division, as in nn.InstanceNorm1d."""


def build_front_end(declared: Input, name: str) -> nn.Module:
    """Return the module that turns waves [B, S] into the input of a file; messages give the encoder's name.

    Raises:
        ConfigError: the parameters contradict each other.
    """
    if isinstance(declared, WaveformInput):
        return _Waveform(declared.scale)
    if declared.low >= declared.high:
        raise ConfigError(
            f"encoder {name}: front_end has low {declared.low:g} and high {declared.high:g}; low must be below high."
        )
    if isinstance(declared, KaldiFbankInput):
        return _Fbank(declared)
    if declared.window_length > declared.fft:
        raise ConfigError(
            f"encoder {name}: front_end has window_length {declared.window_length} and fft {declared.fft};"
            " fft must be at least as long as the window."
        )
    return _LogMel(declared)


def min_front_end_samples(declared: Input) -> int:
    """Return the number of samples of the shortest wave that a front-end accepts."""
    if isinstance(declared, KaldiFbankInput):
        return KaldiFbank.LENGTH
    if isinstance(declared, LogMelInput):
        return declared.fft // 2 + 1  # for the reflection at the edges
    return 1


class _Waveform(nn.Module):
    """[B, S] to [B, S]: samples times `scale`."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, waves: Tensor) -> Tensor:
        return waves * self.scale


class _Fbank(KaldiFbank):
    """[B, S] to Kaldi's energies [B, T, mels], or [B, mels, T]."""

    def __init__(self, entry: KaldiFbankInput) -> None:
        super().__init__(entry.mels, entry.low, entry.high, entry.window, entry.scale, entry.remove_mean)
        self.mels_first = entry.layout == "mels_frames"

    def forward(self, waves: Tensor) -> Tensor:
        energies = super().forward(waves)
        return energies.transpose(1, 2) if self.mels_first else energies


class _LogMel(nn.Module):
    """[B, S] to log(mel power + floor) [B, T, mels], or [B, mels, T], optionally normalised over the utterance."""

    def __init__(self, entry: LogMelInput) -> None:
        super().__init__()
        self.entry = entry
        self.pre_emphasis = PreEmphasis(entry.pre_emphasis) if entry.pre_emphasis else nn.Identity()
        self.spectrogram = MelSpectrogram(
            entry.fft, entry.window_length, entry.hop, entry.mels, entry.low, entry.high, entry.window, entry.scale
        )

    def forward(self, waves: Tensor) -> Tensor:
        mels = (self.spectrogram(self.pre_emphasis(waves)) + self.entry.floor).log()
        mean = mels.mean(dim=2, keepdim=True)
        deviation = (mels.var(dim=2, keepdim=True, correction=0) + DEVIATION_FLOOR).sqrt()
        if self.entry.remove_mean:
            mels = mels - mean
        if self.entry.remove_deviation:
            mels = mels / deviation
        return mels if self.entry.layout == "mels_frames" else mels.transpose(1, 2)
