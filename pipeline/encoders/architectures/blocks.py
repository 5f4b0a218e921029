"""Building blocks that several encoders share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-4


def attention(channels: int, out: int, hidden: int = 128) -> nn.Sequential:
    """Return layers that score channels and frames for SEED's attentive statistics: [B, channels, T] to [B, out, T]."""
    return nn.Sequential(
        nn.Conv1d(channels, hidden, 1), nn.ReLU(inplace=True), nn.BatchNorm1d(hidden), nn.Conv1d(hidden, out, 1)
    )


def weighted_statistics(x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, mean square and deviation [B, C] of x [B, C, T] over time, weighted by the softmax of scores.

    These are the attentive statistics of Okabe et al. (2018, arXiv 1803.10963).
    The computation uses float32 even under autocast, because the variance is a difference of large numbers.
    """
    weights = scores.softmax(dim=2, dtype=torch.float32)
    weighted = weights * x
    mean, square = weighted.sum(dim=2), (weighted * x).sum(dim=2)
    return mean, square, (square - mean.square()).clamp(min=VARIANCE_FLOOR).sqrt()


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, H / stride, W / stride] for x [B, channels, H, W]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)
