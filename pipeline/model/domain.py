"""Whether speech is of the kind that a model was trained on.

A corrupted vector is not told from a foreign one by itself, and raw and enhanced vectors do not mix: trials between
them are worse than trials among either. So the question is put to a whole set of vectors, best the clean enrolments,
and answered once for all that will be compared.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.seed_model import SeedModel

FAMILIAR, FOREIGN = 1.2, 1.8
"""Median atypicality up to which a model is trusted in full, and from which it is not at all."""
VECTORS = 20_000
"""What is looked at, at most."""


def strength_in_domain(model: SeedModel, raw: NDArray[np.float32]) -> tuple[float, float]:
    """Return how far a model should go where speech gives raw embeddings [N, D], and their median atypicality."""
    trust, atypicality = domain_confidence(model, raw)
    return round(float(model.strength) * trust, 6), atypicality


@torch.inference_mode()
def domain_confidence(model: SeedModel, raw: NDArray[np.float32]) -> tuple[float, float]:
    """Return how far a model may be trusted with raw embeddings [N, D], 0 to 1, and their median atypicality.

    The confidence falls in a line from 1 at `FAMILIAR` to 0 at `FOREIGN`. Without embeddings there is nothing to trust.
    A model that does not know its training speech (`pipeline.model.convert`) has a `domain_matrix` of zeros: its
    atypicality is 0 for anything, and it is always trusted.
    """
    spread = raw[np.linspace(0, len(raw) - 1, min(len(raw), VECTORS)).astype(np.int64)] if len(raw) else raw
    found = model.atypicality(torch.from_numpy(spread).to(model.mean.device)).cpu().numpy()
    median = float(np.median(found)) if len(found) else float("inf")
    return float(np.clip((FOREIGN - median) / (FOREIGN - FAMILIAR), 0, 1)), median
