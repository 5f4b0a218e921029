"""Percentiles that summarise a distribution in tables and plots."""

import numpy as np

from pipeline.utils.array_types import FloatArray

PERCENTS = (5, 25, 50, 75, 95)


def percentiles(values: FloatArray) -> tuple[float, ...]:
    """Return the percentiles `PERCENTS` of values [N]."""
    return tuple(map(float, np.percentile(values, PERCENTS)))
