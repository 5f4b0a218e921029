"""Decide how far to trust a model with speech that may be unlike its training speech.

A single vector does not show whether it is corrupted or out of domain. Raw and enhanced vectors do not mix either:
trials between the two are worse than trials among either. So a whole set of vectors, preferably clean enrolments, is
assessed once, for all vectors that will be compared.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.model.seed_model import SeedModel  # imports torch, which reports do not need

FAMILIAR, FOREIGN = 1.2, 1.8
"""Median atypicality up to which a model is fully trusted, and from which it is not trusted at all."""
MAX_VECTORS = 20_000
"""Largest number of vectors that are assessed."""


def strength_in_domain(model: "SeedModel", raw: NDArray[np.float32]) -> tuple[float, float]:
    """Return the strength for speech with raw embeddings [N, D], and their median atypicality."""
    trust, atypicality = domain_confidence(model, raw)
    return round(float(model.strength) * trust, 6), atypicality


def domain_confidence(model: "SeedModel", raw: NDArray[np.float32]) -> tuple[float, float]:
    """Return the trust in a model for raw embeddings [N, D], 0 to 1, and their median atypicality.

    Trust falls linearly from 1 at `FAMILIAR` to 0 at `FOREIGN`; it is 0 without embeddings. A model without statistics
    of its training speech (`pipeline.model.convert`) has a `domain_matrix` of zeros: its atypicality is always 0, and
    its trust 1.
    """
    import torch

    sample = raw[np.linspace(0, len(raw) - 1, min(len(raw), MAX_VECTORS)).astype(np.int64)] if len(raw) else raw
    with torch.inference_mode():
        atypicality = model.atypicality(torch.from_numpy(sample).to(model.mean.device)).cpu().numpy()
    median = float(np.median(atypicality)) if len(atypicality) else float("inf")
    return float(np.clip((FOREIGN - median) / (FOREIGN - FAMILIAR), 0, 1)), median
