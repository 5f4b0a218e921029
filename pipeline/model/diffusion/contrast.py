"""A contrast between recordings that can be added to any distance; it needs no speaker labels."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from pipeline.model.diffusion.objective import Distance

_SAME = 1 - 1e-5
"""Cosine above which two clean embeddings count as equal, up to rounding."""


def contrast_loss(predicted: Tensor, clean: Tensor, count: int, temperature: float) -> Tensor:
    """Return the cross-entropy of finding one's own clean embedding in the batch (InfoNCE; van den Oord et al., 2018).

    Mean of -log exp(cos(x̂_i, x_i) / tau) / sum over j of exp(cos(x̂_i, x_j) / tau), x_j the clean crop of row j. A
    distance weighs all directions alike; the contrast gives more weight to directions in which recordings differ. No
    labels are used, so the few other rows of the same speaker count as negatives; rows with an equal clean embedding do
    not.

    Args:
        predicted: predicted clean embeddings x̂, `count` consecutive ones per row [B * count, D].
        clean: true clean embeddings in the same order [B * count, D].
        count: number of inputs per row.
        temperature: tau.
    """
    keys = normalize(clean[::count], dim=1)
    same = (keys @ keys.T > _SAME).fill_diagonal_(False)
    cosines = (normalize(predicted, dim=1) @ keys.T).masked_fill(same.repeat_interleave(count, dim=0), -math.inf)
    own = torch.arange(len(keys), device=predicted.device).repeat_interleave(count)
    return cross_entropy(cosines / temperature, own)


def add_contrast(distance: Distance, weight: float, count: int, temperature: float) -> Distance:
    """Return a distance [B * count, D] plus `weight` times `contrast_loss`."""
    if not weight:
        return distance
    return lambda predicted, clean: (
        distance(predicted, clean) + weight * contrast_loss(predicted, clean, count, temperature)
    )
