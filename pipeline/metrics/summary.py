"""All figures of scores at once, of groups of trials, and of several systems compared."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import STANDARD, OperatingPoint
from pipeline.errors import TrialError
from pipeline.metrics.bootstrap import Ranking, interval, p_value, replicates
from pipeline.metrics.costs import act_dcf, cllr, min_cllr, min_dcf, min_dcf_threshold
from pipeline.metrics.roc import (
    Floats,
    Mask,
    Roc,
    Scores,
    check_trials,
    eer,
    eer_threshold,
    false_alarm_at,
    miss_at,
    roc_of,
    rocch,
)

Histogram = tuple[Floats, NDArray[np.int64], NDArray[np.int64]]
"""Edges [B + 1] of bins, and how many targets and non-targets [B] have scores between them."""

Speakers = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Speaker numbers [M] of the enrolment and of the test side."""


def figures(
    scores: Scores, target: Mask, points: Sequence[OperatingPoint] = STANDARD, calibrated: bool = False
) -> tuple[dict[str, Any], Roc]:
    """Return the figures of scores [M], target [M], EERs in percent, and their ROC.

    Args:
        scores: higher means more alike.
        target: whether same speaker.
        points: where detection costs are measured.
        calibrated: the scores are natural log-likelihood ratios, so that their calibration can be measured.

    Raises:
        TrialError: see `check_trials`.
    """
    roc = roc_of(scores, target)
    hull = rocch(roc)
    result: dict[str, Any] = {"eer": _eer_percent(roc), "eer_rocch": _eer_percent(hull)}
    result |= {f"min_dcf_{point.name}": min_dcf(roc, point) for point in points}
    if calibrated:
        result |= {f"act_dcf_{point.name}": act_dcf(scores, target, point) for point in points}
        result["cllr"] = cllr(scores, target)
    targets = int(target.sum())
    return result | {"min_cllr": min_cllr(hull), "targets": targets, "nontargets": len(target) - targets}, roc


def operating(
    roc: Roc,
    scores: Scores,
    target: Mask,
    points: Sequence[OperatingPoint],
    false_alarms: Sequence[float],
    misses: Sequence[float],
) -> dict[str, Any]:
    """Return thresholds, and error rates where the other one is bounded, all rates in percent.

    `min_dcf_…_threshold` is None where it costs least to accept everything.

    Args:
        roc: of the scores.
        scores: [M].
        target: [M].
        points: whose thresholds of the minDCF are wanted.
        false_alarms: rates at which the miss rate is wanted, as `frr_at_far_…`.
        misses: rates at which the false alarm rate is wanted, as `far_at_frr_…`.
    """
    result: dict[str, Any] = {"eer_threshold": eer_threshold(roc, scores, target)}
    for point in points:
        threshold = min_dcf_threshold(roc, point)
        result[f"min_dcf_{point.name}_threshold"] = threshold if np.isfinite(threshold) else None
    result |= {f"frr_at_far_{rate:g}": 100 * miss_at(roc, rate / 100) for rate in false_alarms}
    return result | {f"far_at_frr_{rate:g}": 100 * false_alarm_at(roc, rate / 100) for rate in misses}


def by_group(
    scores: Scores,
    target: Mask,
    groups: Sequence[str] | NDArray[np.str_],
    points: Sequence[OperatingPoint] = STANDARD,
    calibrated: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return the `figures` of every group of trials by its label, in order of labels.

    A group that holds one class only has its counts alone: nothing can be measured on it.

    Args:
        scores: [M].
        target: [M].
        groups: a label a trial [M]: gender, age, duration, condition.
        points: see `figures`.
        calibrated: see `figures`.

    Raises:
        TrialError: see `check_trials`; or there are more or fewer labels than trials.
    """
    check_trials(scores, target)
    if len(groups) != len(target):
        raise TrialError(f"{len(groups):,} group labels of {len(target):,} trials; there must be one each.")
    labels, numbers, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    result: dict[str, dict[str, Any]] = {}
    for label, trials in zip(labels, members, strict=True):
        hits = int(target[trials].sum())
        if 0 < hits < len(trials):
            result[str(label)] = figures(scores[trials], target[trials], points, calibrated)[0]
        else:
            result[str(label)] = {"targets": hits, "nontargets": len(trials) - hits}
    return result


def histogram(scores: Scores, target: Mask, bins: int = 100) -> Histogram:
    """Return shared edges [B + 1], and how many targets and non-targets [B] have scores between them.

    Raises:
        TrialError: see `check_trials`.
    """
    check_trials(scores, target)
    edges = np.histogram_bin_edges(scores.astype(np.float64), bins)
    hits, _ = np.histogram(scores[target], edges)
    others, _ = np.histogram(scores[~target], edges)
    return edges, hits, others


def compare(
    scores: Mapping[str, Scores],
    target: Mask,
    speakers: Speakers | None,
    points: Sequence[OperatingPoint] = STANDARD,
    resamples: int = 0,
    seed: int = 0,
    costs: bool = False,
    calibrated: Collection[str] = (),
) -> tuple[dict[str, dict[str, Any]], dict[str, Roc], Floats | None]:
    """Return the figures and ROCs of several systems on the same trials, each compared with the first.

    The third is the replicates [resamples, systems, statistics] that the intervals come from, if there are any.

    Beside their `figures`, systems have `eer_ci`, the 95 % interval of their EER by bootstrap over speakers (where
    these are known); and all but the first have `eer_difference`, theirs minus the first's in percentage points, with
    `eer_difference_ci` and the two-sided `p_value` of no difference, from the same draws for both.

    Args:
        scores: a score a trial [M], by system.
        target: [M].
        speakers: of both sides; None if unknown.
        points: see `figures`.
        resamples: of the bootstrap; 0 leaves intervals and p-values out.
        seed: of the bootstrap.
        costs: also compare the minDCFs, as `min_dcf_…_difference`, `min_dcf_…_difference_ci` and `min_dcf_…_p_value`.
        calibrated: systems whose scores are natural log-likelihood ratios, see `figures`.

    Raises:
        TrialError: see `check_trials`.
    """
    measured = {name: figures(values, target, points, name in calibrated) for name, values in scores.items()}
    table = {name: result for name, (result, _) in measured.items()}
    compared = points if costs else ()
    keys = ["eer", *(f"min_dcf_{point.name}" for point in compared)]
    first = next(iter(table.values()))
    for result in list(table.values())[1:]:
        result |= {f"{key}_difference": result[key] - first[key] for key in keys}
    drawn = None
    if speakers and resamples:
        rankings = [Ranking.of(values, target) for values in scores.values()]
        statistics: list[Callable[[Roc], float]] = [_eer_percent]
        statistics += [partial(min_dcf, point=point) for point in compared]
        drawn = replicates(rankings, *speakers, statistics, resamples, seed)
        for system, (name, result) in enumerate(table.items()):
            table[name] = _with_intervals(result, keys, drawn[:, system], drawn[:, 0] if system else None)
    return table, {name: roc for name, (_, roc) in measured.items()}, drawn


def mean_compared(
    tables: Sequence[Mapping[str, Mapping[str, Any]]], drawn: Sequence[Floats | None]
) -> dict[str, dict[str, Any]]:
    """Return the mean EER of every system over several conditions, with intervals as `compare` has them.

    Args:
        tables: of `compare`, one a condition, on the same trials.
        drawn: its replicates, whose first statistic is the EER: of the same draws of speakers, as the trials and the
            seed are the same.
    """
    names = list(tables[0])
    table = {name: {"eer": float(np.mean([each[name]["eer"] for each in tables]))} for name in names}
    for name in names[1:]:
        table[name]["eer_difference"] = table[name]["eer"] - table[names[0]]["eer"]
    known = [values[:, :, :1] for values in drawn if values is not None]
    if len(known) < len(drawn):
        return table
    means = np.mean(known, axis=0)
    return {
        name: _with_intervals(table[name], ["eer"], means[:, system], means[:, 0] if system else None)
        for system, name in enumerate(names)
    }


def _eer_percent(roc: Roc) -> float:
    return 100 * eer(roc)


def _with_intervals(
    result: Mapping[str, Any], keys: Sequence[str], drawn: Floats, first: Floats | None
) -> dict[str, Any]:
    """Put intervals and p-values of replicates [R, keys] behind the figures that they are of."""
    extended: dict[str, Any] = {}
    for name, value in result.items():
        extended[name] = value
        key = name.removesuffix("_difference")
        if key not in keys:
            continue
        if name == key:
            extended[f"{key}_ci"] = list(interval(drawn[:, keys.index(key)]))
        elif first is not None:
            differences = drawn[:, keys.index(key)] - first[:, keys.index(key)]
            extended[f"{name}_ci"] = list(interval(differences))
            extended["p_value" if key == "eer" else f"{key}_p_value"] = p_value(differences)
    return extended
