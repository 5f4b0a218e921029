"""Front-ends that params.yaml declares, for files that hold a network and nothing before it."""

from torch import Tensor, nn

from pipeline.config.encoder import Input, KaldiFbankInput, LogMelInput, WaveformInput
from pipeline.encoders.features import KaldiFbank, MelSpectrogram, PreEmphasis
from pipeline.errors import ConfigError

DEVIATION_FLOOR = 1e-5
"""Added to variances before they divide, as nn.InstanceNorm1d does."""


def build_front_end(declared: Input, name: str) -> nn.Module:
    """Return the module that turns waves [B, S] into what a file takes.

    Args:
        declared: its kind and parameters.
        name: of the encoder, for the message.

    Raises:
        ConfigError: parameters that contradict each other.
    """
    if isinstance(declared, WaveformInput):
        return _Waveform(declared.scale)
    if declared.low >= declared.high:
        raise ConfigError(
            f"encoder {name}: front_end has low {declared.low:g} and high {declared.high:g}; low must be the lower."
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
    """Return the least number of samples that a front-end can work on."""
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


class _Fbank(nn.Module):
    """[B, S] to Kaldi's energies [B, T, mels], or [B, mels, T]."""

    def __init__(self, declared: KaldiFbankInput) -> None:
        super().__init__()
        self.mels_first = declared.layout == "mels_frames"
        self.fbank = KaldiFbank(
            declared.mels, declared.low, declared.high, declared.window, declared.scale, declared.remove_mean
        )

    def forward(self, waves: Tensor) -> Tensor:
        energies = self.fbank(waves)
        return energies.transpose(1, 2) if self.mels_first else energies


class _LogMel(nn.Module):
    """[B, S] to log(mel power + floor) [B, T, mels], or [B, mels, T], normalised over the utterance if so declared."""

    def __init__(self, declared: LogMelInput) -> None:
        super().__init__()
        self.declared = declared
        self.pre_emphasis = PreEmphasis(declared.pre_emphasis) if declared.pre_emphasis else nn.Identity()
        self.spectrogram = MelSpectrogram(
            declared.fft,
            declared.window_length,
            declared.hop,
            declared.mels,
            declared.low,
            declared.high,
            declared.window,
            declared.scale,
        )

    def forward(self, waves: Tensor) -> Tensor:
        mels = (self.spectrogram(self.pre_emphasis(waves)) + self.declared.floor).log()
        mean = mels.mean(dim=2, keepdim=True)
        deviation = (mels.var(dim=2, keepdim=True, correction=0) + DEVIATION_FLOOR).sqrt()
        if self.declared.remove_mean:
            mels = mels - mean
        if self.declared.remove_deviation:
            mels = mels / deviation
        return mels if self.declared.layout == "mels_frames" else mels.transpose(1, 2)
