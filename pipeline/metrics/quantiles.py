"""Percentiles that are reported of a distribution."""

PERCENTS = (5, 25, 50, 75, 95)
