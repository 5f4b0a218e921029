"""ResNetSE34V2 (Heo et al., 2020, arXiv 2009.14153): a ResNet-34 of half width with squeeze and excitation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.architectures.blocks import attention, weighted_statistics
from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Family, first_size
from pipeline.encoders.features import MelSpectrogram, PreEmphasis

MELS, HOP = 64, 160
STAGES = ((3, 32, 1), (4, 64, 2), (6, 128, 2), (3, 256, 2))
"""Number of blocks, channels and stride of the four stages."""
REDUCTION = 8
"""Factor by which strides reduce time and frequency, and squeeze and excitation reduces channels."""


class ResNetSE34V2(Network):
    """Normalised log mel spectrogram → convolution → 4 stages of residual blocks → attentive statistics → Linear.

    ReLU comes before BatchNorm except at the end of a block. State-dict names, including the front-end, are those of
    clovaai's voxceleb_trainer and of SEED.
    """

    # 80 ms, 9 frames: a deviation needs two frames after the strides. Reflection alone would need 257 samples.
    min_samples = REDUCTION * HOP

    def __init__(self, dim: int = 512) -> None:
        """Build the network for embeddings of length `dim`."""
        super().__init__()
        self.dim = dim
        self.torchfb = nn.Sequential(PreEmphasis(), MelSpectrogram(512, 400, HOP, MELS, window="hamming"))
        channels = STAGES[0][1]
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, (blocks, out, stride) in enumerate(STAGES, start=1):
            rest = (_Block(out, out, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(_Block(channels, out, stride), *rest))
            channels = out
        rows = channels * MELS // REDUCTION
        self.attention = attention(rows, rows)
        self.fc = nn.Linear(2 * rows, dim)

    def features(self, waves: Tensor) -> Tensor:
        """Return [B, 64, 1 + S // 160] for waves [B, S], every bin with mean 0 and deviation 1."""
        return F.instance_norm((self.torchfb(waves) + 1e-6).log_(), eps=1e-5)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for features [B, 64, frames]."""
        x = self.bn1(F.relu(self.conv1(features.unsqueeze(1)), inplace=True))
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        x = x.flatten(1, 2)
        mean, _, deviation = weighted_statistics(x, self.attention(x))
        return self.fc(torch.cat([mean, deviation], dim=1))


class _Block(nn.Module):
    """Two 3x3 convolutions and a gate around a shortcut: [B, C, H, W] to [B, out, H / stride, W / stride]."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.se = _Gate(out)
        self.downsample = nn.Sequential()
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(F.relu(self.conv1(x), inplace=True))))
        return F.relu(torch.addcmul(self.downsample(x), y, self.se(y)), inplace=True)


class _Gate(nn.Module):
    """Squeeze and excitation (Hu et al., 2017, arXiv 1709.01507): scales of the channels [B, C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(dim=(2, 3)))[..., None, None]


FAMILIES = (
    Family(
        name="resnetse34v2",
        title='ResNetSE34V2, 512-d ("ResNet34" of the SEED paper)',
        checkpoints="clovaai's voxceleb_trainer, SEED",
        build=lambda state: ResNetSE34V2(first_size(state, "fc.weight", 512)),
        signature=("layer4.2.se.fc.2.weight", "attention.3.weight", "fc.weight"),
        dim=512,
        crops_per_second=16.0,
    ),
)
