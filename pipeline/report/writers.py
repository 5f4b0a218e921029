"""Writers of CSV files with curves, histograms and groups; each file is written whole or not at all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config.score import OperatingPoint
from pipeline.metrics import Histogram, Roc, probit
from pipeline.utils.atomic import replacing, write_table
from pipeline.utils.paths import Place

BINS = ("from", "to", "targets", "nontargets")


def write_det(path: Place, rocs: Mapping[tuple[str, str], Roc]) -> None:
    """Write the points of several ROCs by (condition, system) as CSV, rates in percent."""
    rows = (
        (condition, system, f"{100 * false_alarm:.4f}", f"{100 * miss:.4f}")
        for (condition, system), roc in rocs.items()
        for false_alarm, miss in zip(roc.false_alarm, roc.miss, strict=True)
    )
    write_table(path, ("condition", "system", "false_alarm", "miss"), rows)


def write_roc(path: Place, roc: Roc) -> None:
    """Write the points of a ROC as CSV: rates as shares, and their coordinates on a DET plot."""
    columns = (roc.threshold, roc.false_alarm, roc.miss, 1 - roc.miss, probit(roc.false_alarm), probit(roc.miss))
    # Adding 0 makes 0 of negative zeros.
    header = "threshold,false_alarm,miss,hit,probit_false_alarm,probit_miss"
    with replacing(path) as temporary:
        np.savetxt(temporary, np.column_stack(columns) + 0.0, fmt="%.6g", delimiter=",", header=header, comments="")


def write_histogram(path: Place, histogram: Histogram) -> None:
    """Write the numbers of targets and non-targets in each bin of scores as CSV."""
    write_table(path, BINS, _format_bins(histogram))


def write_histograms(path: Place, histograms: Mapping[tuple[str, str], Histogram]) -> None:
    """Write several histograms by (condition, system) as CSV."""
    rows = ((*names, *row) for names, histogram in histograms.items() for row in _format_bins(histogram))
    write_table(path, ("condition", "system", *BINS), rows)


def write_groups(
    path: Place,
    groups: Mapping[tuple[str, str, str], Mapping[str, Mapping[str, Any]]],
    points: Sequence[OperatingPoint],
) -> None:
    """Write the figures of `metrics.by_group` by (condition, system, column) as CSV, EERs in percent.

    Groups with only one class have counts only.
    """
    keys = ["eer", *(f"min_dcf_{point.name}" for point in points)]
    rows = (
        (
            *(*names, label),
            *(f"{figures[key]:.6g}" if key in figures else "" for key in keys),
            *(figures["targets"], figures["nontargets"]),
        )
        for names, by_label in groups.items()
        for label, figures in by_label.items()
    )
    write_table(path, ("condition", "system", "column", "group", *keys, "targets", "nontargets"), rows)


def _format_bins(histogram: Histogram) -> Iterable[tuple[str, str, int, int]]:
    edges, targets, nontargets = histogram
    for low, high, hits, others in zip(edges[:-1], edges[1:], targets, nontargets, strict=True):
        yield f"{low:z.6g}", f"{high:z.6g}", int(hits), int(others)
