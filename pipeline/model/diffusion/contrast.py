"""A contrast between recordings, added to any distance: who is told apart by it, nobody has to say."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from pipeline.model.diffusion.objective import Distance

_SAME = 1 - 1e-5
"""Cosine above which two clean embeddings are one, rounding aside."""


def contrast_loss(predicted: Tensor, clean: Tensor, count: int, temperature: float) -> Tensor:
    """Cross-entropy of finding the own clean embedding among those of the batch (InfoNCE; van den Oord et al., 2018).

    Mean of -log exp(cos(x̂_i, x_i) / tau) / sum over j of exp(cos(x̂_i, x_j) / tau), x_j the clean crop of row j. A
    distance weighs all directions alike; this weighs those more by which recordings differ. No labels are asked for, so
    that the few rows that are by the same speaker count as others; rows with the same clean embedding do not.

    Args:
        predicted: clean embeddings x̂ as predicted, row by row for `count` inputs of each [B * count, D].
        clean: the true ones, repeated likewise [B * count, D].
        count: inputs of a row.
        temperature: tau.
    """
    keys = normalize(clean[::count], dim=1)
    same = (keys @ keys.T > _SAME).fill_diagonal_(False)
    cosines = (normalize(predicted, dim=1) @ keys.T).masked_fill(same.repeat_interleave(count, dim=0), -math.inf)
    own = torch.arange(len(keys), device=predicted.device).repeat_interleave(count)
    return cross_entropy(cosines / temperature, own)


def with_contrast(distance: Distance, weight: float, count: int, temperature: float) -> Distance:
    """Return a distance [B * count, D] plus `weight` times `contrast_loss`."""
    if not weight:
        return distance
    return lambda predicted, clean: (
        distance(predicted, clean) + weight * contrast_loss(predicted, clean, count, temperature)
    )
