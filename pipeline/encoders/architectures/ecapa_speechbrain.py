"""ECAPA-TDNN of SpeechBrain and 3D-Speaker (Desplanques et al., Interspeech 2020, arXiv 2005.07143)."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Family, first_size
from pipeline.encoders.features import SAMPLE_RATE, KaldiFbank
from pipeline.utils.checkpoint import State

MELS = 80
DILATIONS = (2, 3, 4)
"""Dilations of the three SE-Res2 blocks."""
SCALE = 8
"""Number of parts into which a Res2 convolution splits its channels."""
BOTTLENECK = 128
"""Number of hidden channels of squeeze-excitation and attention."""
VARIANCE_FLOOR = 1e-12


class SpeechBrainFbank(nn.Module):
    """SpeechBrain's mel filter bank in decibels, minus its mean over time: [B, S] to [B, 1 + S // 160, 80].

    Windows of 25 ms (periodic Hamming) centred every 10 ms with zero padding; 400-point power spectrum; symmetric
    triangles; 10 log10 floored at 1e-10 and at 80 dB below the maximum of the utterance.
    """

    LENGTH, HOP = 400, 160
    FLOOR, RANGE = 1e-10, 80.0

    window: Tensor
    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hamming_window(self.LENGTH, periodic=True), persistent=False)
        mel = np.linspace(0, 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700), MELS + 2)
        edges = 700 * (10 ** (mel / 2595) - 1)
        left, centre = edges[:-2], edges[1:-1]
        points = np.linspace(0, SAMPLE_RATE / 2, self.LENGTH // 2 + 1)[:, None]
        bank = np.maximum(0, 1 - np.abs(points - centre) / (centre - left))
        self.register_buffer("bank", torch.from_numpy(bank).float(), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Return [B, 1 + S // 160, 80] for waves [B, S]."""
        frames = F.pad(waves, (self.LENGTH // 2, self.LENGTH // 2)).unfold(1, self.LENGTH, self.HOP)
        power = torch.view_as_real(torch.fft.rfft(frames * self.window)).square().sum(dim=-1)
        decibels = 10 * (power @ self.bank).clamp(min=self.FLOOR).log10()
        decibels = decibels.maximum(decibels.amax(dim=(1, 2), keepdim=True) - self.RANGE)
        return decibels - decibels.mean(dim=1, keepdim=True)


class SpeechBrainEcapa(Network):
    """Features → TDNN → 3 SE-Res2 blocks → all three together → attentive mean and deviation → BatchNorm → Linear.

    Convolutions reflect at the edges, and ReLU and BatchNorm follow them. State-dict names and arithmetic are those of
    SpeechBrain; 3D-Speaker's network differs only in the front-end.
    """

    def __init__(
        self, dim: int = 192, channels: int = 1024, front_end: SpeechBrainFbank | KaldiFbank | None = None
    ) -> None:
        """Build the network; `channels` is a multiple of eight, and weights of 3D-Speaker need `KaldiFbank()`."""
        super().__init__()
        self.dim = dim
        self.front_end = front_end or SpeechBrainFbank()
        # Five frames: the widest reflection takes four on each side and one to mirror them at. SpeechBrain's first
        # frame is centred on the first sample, while Kaldi's needs a whole window.
        start = self.front_end.LENGTH if isinstance(self.front_end, KaldiFbank) else 0
        self.min_samples = start + DILATIONS[-1] * self.front_end.HOP
        blocks = [_SeRes2Block(channels, dilation) for dilation in DILATIONS]
        self.blocks = nn.ModuleList([_Tdnn(MELS, channels, kernel=5), *blocks])
        self.mfa = _Tdnn(3 * channels, 3 * channels)
        self.asp = _AttentiveStatistics(3 * channels)
        self.asp_bn = _Norm(6 * channels)
        self.fc = _Conv(6 * channels, dim)

    def features(self, waves: Tensor) -> Tensor:
        """Return [B, frames, 80] for waves [B, S]."""
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for features [B, frames, 80] of at least five frames."""
        outputs = [features.transpose(1, 2)]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        x = self.asp(self.mfa(torch.cat(outputs[2:], dim=1)))
        return self.fc(self.asp_bn(x)).squeeze(2)


class _Conv(nn.Module):
    """Convolution over time with reflection, which keeps the length: [B, in, T] to [B, out, T]."""

    def __init__(self, channels: int, out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, out, kernel, dilation=dilation)
        self.padding = dilation * (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.padding, self.padding), mode="reflect") if self.padding else x)


class _Norm(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)


class _Tdnn(nn.Sequential):
    """[B, in, T] to [B, out, T]: convolution, ReLU, BatchNorm."""

    def __init__(self, channels: int, out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv, self.relu = _Conv(channels, out, kernel, dilation), nn.ReLU(inplace=True)
        self.norm = _Norm(out)


class _SeRes2Block(nn.Module):
    """1x1 convolution, Res2 convolution, 1x1 convolution and squeeze-excitation around a shortcut (figure 2)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.tdnn1 = _Tdnn(channels, channels)
        self.res2net_block = _Res2(channels, dilation)
        self.tdnn2 = _Tdnn(channels, channels)
        self.se_block = _SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))


class _Res2(nn.Module):
    """Convolutions of an eighth of the channels each; all except the first also take the output of the previous one."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.blocks = nn.ModuleList(_Tdnn(width, width, 3, dilation) for _ in range(SCALE - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = x.chunk(SCALE, dim=1)
        outputs = [first]
        for number, (block, chunk) in enumerate(zip(self.blocks, rest, strict=True)):
            outputs.append(block(chunk + outputs[-1] if number else chunk))
        return torch.cat(outputs, dim=1)


class _SqueezeExcitation(nn.Module):
    """Scales of channels from the mean over the utterance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _Conv(channels, BOTTLENECK)
        self.conv2 = _Conv(BOTTLENECK, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean(dim=2, keepdim=True)))))


class _AttentiveStatistics(nn.Module):
    """[B, C, T] to [B, 2 C, 1]: mean and deviation over time, weighted by attention for every channel.

    The attention also takes mean and deviation of the whole utterance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tdnn = _Tdnn(3 * channels, BOTTLENECK)
        self.conv = _Conv(BOTTLENECK, channels)

    def forward(self, x: Tensor) -> Tensor:
        context = _statistics(x, torch.full_like(x[:, :1], 1 / x.shape[2]))
        return _statistics(x, self.conv(torch.tanh(self._attention(x, context))).softmax(dim=2))

    def _attention(self, x: Tensor, context: Tensor) -> Tensor:
        """Return `tdnn` of x and its context, without copying the context to every frame."""
        conv = self.tdnn.conv.conv
        own, shared = conv.weight[:, : x.shape[1]], conv.weight[:, x.shape[1] :]
        return self.tdnn.norm(F.relu(F.conv1d(x, own, conv.bias) + F.conv1d(context, shared)))


def _statistics(x: Tensor, weights: Tensor) -> Tensor:
    """Return weighted mean and deviation [B, 2 C, 1] of x [B, C, T]; weights [B, C or 1, T] add up to one."""
    with torch.autocast(x.device.type, enabled=False):  # squares need float32
        x, weights = x.float(), weights.float()
        mean = torch.einsum("bct,bct->bc", weights, x).unsqueeze(2)
        variance = torch.einsum("bct,bct->bc", weights, (x - mean).square()).unsqueeze(2)
        return torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1)


def _build(state: State, front_end: KaldiFbank | None = None) -> SpeechBrainEcapa:
    dim, channels = first_size(state, "fc.conv.weight", 192), first_size(state, "blocks.0.conv.conv.weight", 1024)
    return SpeechBrainEcapa(dim, channels, front_end)


_SIGNATURE = ("blocks.1.res2net_block.blocks.0.conv.conv.weight", "asp_bn.norm.weight", "fc.conv.weight")

FAMILIES = (
    Family(
        name="ecapa_speechbrain",
        title="ECAPA-TDNN, 192-d",
        checkpoints="SpeechBrain (embedding_model.ckpt)",
        build=_build,
        signature=_SIGNATURE,
        dim=192,
        crops_per_second=6.8,
        weights="hf://speechbrain/spkrec-ecapa-voxceleb@5c0be3875fda05e81f3c004ed8c7c06be308de1e/embedding_model.ckpt",
        licence="Apache-2.0",
    ),
    Family(
        name="ecapa_3dspeaker",
        title="ECAPA-TDNN on Kaldi filter banks, 192-d",
        checkpoints="3D-Speaker",
        build=lambda state: _build(state, KaldiFbank()),
        signature=_SIGNATURE,
        dim=192,
        crops_per_second=8.0,
    ),
)
