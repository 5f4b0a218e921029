"""Scores for tests: small ones full of ties, and those of a calibrated Gaussian model."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

RELAXED = settings(deadline=None)
"""The first example pays for imports of the oracles."""

# Few different values, so that ties within and across classes are common.
TIED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60).filter(
    lambda trials: 0 < sum(target for _, target in trials) < len(trials)
)


def arrays(trials: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, target = zip(*trials, strict=True)
    return np.array(scores, dtype=np.float64), np.array(target)


def gaussian(separation: float, count: int = 200_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood ratios of unit normals `separation` apart: normal of mean ±d²/2 and variance d²."""
    rng = np.random.default_rng(seed)
    target = np.arange(2 * count) < count
    return separation * rng.standard_normal(2 * count) + np.where(target, 0.5, -0.5) * separation**2, target
