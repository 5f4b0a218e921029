"""Interpolation between raw and enhanced embeddings on the sphere."""

import torch
from torch import Tensor


def interpolate(raw: Tensor, enhanced: Tensor, strength: float) -> Tensor:
    """Interpolate from raw to enhanced embeddings [B, D] along great circles, at the raw lengths.

    sin((1 - s) w) / sin(w) a + sin(s w) / sin(w) b for unit vectors a and b at the angle w (Shoemake, 1985). Rescaling
    to the raw length replaces the division by sin(w). Strength 0 returns the raw embeddings, 1 the enhanced ones at
    their own lengths.
    """
    if strength in (0.0, 1.0):
        return enhanced if strength else raw
    length = _norm(raw)
    a, b = raw / length.clamp(min=1e-12), enhanced / _norm(enhanced).clamp(min=1e-12)
    # The half-angle formula is exact for close vectors, unlike acos. Below 1e-3, sin(w) equals w to float32 precision,
    # so any small angle gives the same result.
    angle = (2 * torch.atan2(_norm(a - b), _norm(a + b))).clamp(min=1e-3)
    mixed = torch.addcmul(((1 - strength) * angle).sin() * a, (strength * angle).sin(), b)
    return mixed * (length / _norm(mixed).clamp(min=1e-12))


def _norm(x: Tensor) -> Tensor:
    """Return the lengths [B, 1] of vectors [B, D]."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return lengths
