"""SEED's variant of ECAPA-TDNN (Desplanques et al., 2020, arXiv 2005.07143), on MFCC and with another pooling."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.architectures.blocks import VARIANCE_FLOOR, attention, weighted_statistics
from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Family, first_size
from pipeline.encoders.features import MelSpectrogram, PreEmphasis

COEFFICIENTS = 80
DILATIONS = (2, 3, 4)
"""Dilations of the three blocks."""
SCALE = 8
"""Number of pieces into which a block splits its channels."""
BOTTLENECK = 128
POOLED = 1536


class SeedEcapa(Network):
    """Centred MFCC → convolution → 3 SE-Res2 blocks → attentive statistics → BatchNorm → Linear.

    Each block takes the sum of all earlier outputs, and ReLU comes before BatchNorm. State-dict names, including
    the front-end, are those of SEED.
    """

    # Reflection needs more than half a transform, which gives the two frames that an unbiased variance needs.
    min_samples = 512 // 2 + 1

    def __init__(self, dim: int = 256, channels: int = 1024) -> None:
        """Build the network for embeddings of length `dim`, with blocks of `channels`."""
        super().__init__()
        self.dim = dim
        self.torchmfcc = nn.Sequential(PreEmphasis(), _Mfcc())
        self.conv1 = nn.Conv1d(COEFFICIENTS, channels, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(channels)
        self.layer1, self.layer2, self.layer3 = (_Block(channels, dilation) for dilation in DILATIONS)
        self.layer4 = nn.Conv1d(len(DILATIONS) * channels, POOLED, 1)
        self.attention = attention(3 * POOLED, POOLED)
        self.bn5 = nn.BatchNorm1d(2 * POOLED)
        self.fc6 = nn.Linear(2 * POOLED, dim)
        # Checkpoints contain it, but SEED's network never applies it.
        self.bn6 = nn.BatchNorm1d(dim)

    def features(self, waves: Tensor) -> Tensor:
        """Return [B, 80, 1 + S // 160] for waves [B, S], where every coefficient has mean 0 over the utterance."""
        cepstrum = self.torchmfcc(waves)
        return cepstrum - cepstrum.mean(dim=2, keepdim=True)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for features [B, 80, frames]."""
        x = self.bn1(F.relu(self.conv1(features), inplace=True))
        x1 = self.layer1(x)
        x = x + x1
        x2 = self.layer2(x)
        x3 = self.layer3(x + x2)
        x = F.relu(self.layer4(torch.cat([x1, x2, x3], dim=1)), inplace=True)
        _, square, deviation = weighted_statistics(x, self._scores(x))
        # The published weights were trained with the root mean square in place of the mean.
        pooled = torch.cat([square.clamp(min=VARIANCE_FLOOR).sqrt(), deviation], dim=1)
        return self.fc6(self.bn5(pooled))

    def _scores(self, x: Tensor) -> Tensor:
        """Return attention scores [B, C, T] for x [B, C, T] and its mean and deviation over the utterance."""
        variance, mean = torch.var_mean(x, dim=2, keepdim=True)
        context = torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1)
        # The context is the same in every frame, so its part of the first convolution is one column.
        weight, bias = self.attention.get_parameter("0.weight"), self.attention.get_parameter("0.bias")
        hidden = F.conv1d(x, weight[:, :POOLED]) + F.conv1d(context, weight[:, POOLED:], bias)
        return self.attention[1:](hidden)


class _Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients: [B, S] to [B, 80, 1 + S // 160]."""

    dct_mat: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dct_mat", _cosines(COEFFICIENTS))
        self.MelSpectrogram = MelSpectrogram(512, 400, 160, COEFFICIENTS, 20, 7600, window="hamming")

    def forward(self, waves: Tensor) -> Tensor:
        return self.dct_mat.T @ (self.MelSpectrogram(waves) + 1e-6).log_()


class _Block(nn.Module):
    """SE-Res2 block: [B, C, T] to [B, C, T]; each further piece of the channels passes through one more layer."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.conv1 = nn.Conv1d(channels, channels, 1)
        self.bn1 = nn.BatchNorm1d(channels)
        convs = (nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(SCALE - 1))
        self.convs = nn.ModuleList(convs)
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(SCALE - 1))
        self.conv3 = nn.Conv1d(channels, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.se = _Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(F.relu(self.conv1(x), inplace=True))
        *pieces, last = y.chunk(SCALE, dim=1)
        done: list[Tensor] = []
        for piece, conv, bn in zip(pieces, self.convs, self.bns, strict=True):
            done.append(bn(F.relu(conv(piece + done[-1] if done else piece), inplace=True)))
        y = self.bn3(F.relu(self.conv3(torch.cat([*done, last], dim=1)), inplace=True))
        return torch.addcmul(x, y, self.se(y))


class _Gate(nn.Module):
    """Squeeze and excitation: scales of the channels [B, C, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze, excite = nn.Conv1d(channels, BOTTLENECK, 1), nn.Conv1d(BOTTLENECK, channels, 1)
        norm = nn.BatchNorm1d(BOTTLENECK)
        self.se = nn.Sequential(nn.AdaptiveAvgPool1d(1), squeeze, nn.ReLU(inplace=True), norm, excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.se(x)


def _cosines(size: int) -> Tensor:
    """Return the orthonormal DCT-II [size, size], with one column per coefficient."""
    point, order = torch.arange(size, dtype=torch.float64)[:, None] + 0.5, torch.arange(size, dtype=torch.float64)
    matrix = (point * order * math.pi / size).cos() * math.sqrt(2 / size)
    matrix[:, 0] /= math.sqrt(2)
    return matrix.float()


FAMILIES = (
    Family(
        name="ecapa_seed",
        title='ECAPA-TDNN on MFCC, 256-d ("ECAPA-TDNN" of the SEED paper)',
        checkpoints="SEED",
        build=lambda state: SeedEcapa(first_size(state, "fc6.weight", 256), first_size(state, "conv1.weight", 1024)),
        signature=("torchmfcc.1.dct_mat", "layer1.se.se.4.weight", "fc6.weight"),
        dim=256,
        crops_per_second=9.7,
    ),
)
