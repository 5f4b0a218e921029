"""Attentive statistics of SEED's encoders (Okabe et al., 2018, arXiv 1803.10963)."""

import torch
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-4


def attention(channels: int, out: int, hidden: int = 128) -> nn.Sequential:
    """Return layers that score every channel and frame: [B, channels, T] to [B, out, T]."""
    return nn.Sequential(
        nn.Conv1d(channels, hidden, 1), nn.ReLU(inplace=True), nn.BatchNorm1d(hidden), nn.Conv1d(hidden, out, 1)
    )


def weighted_statistics(x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, mean square and deviation [B, C] of x [B, C, T] over time, weighted by the softmax of scores.

    The computation uses float32 even under autocast, because the variance is a difference of large numbers.
    """
    weights = scores.softmax(dim=2, dtype=torch.float32)
    weighted = weights * x
    mean, square = weighted.sum(dim=2), (weighted * x).sum(dim=2)
    return mean, square, (square - mean.square()).clamp(min=VARIANCE_FLOOR).sqrt()
