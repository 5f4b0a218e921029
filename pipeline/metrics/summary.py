"""All figures of a system, of groups of trials, and of several systems in comparison."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import STANDARD, OperatingPoint
from pipeline.errors import TrialError
from pipeline.metrics.bootstrap import Ranking, interval, p_value, replicates
from pipeline.metrics.costs import act_dcf, cllr, min_cllr, min_dcf, min_dcf_threshold
from pipeline.metrics.roc import Roc, check_trials, eer, eer_threshold, false_alarm_at, miss_at, roc_of, rocch
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray, IntArray

Histogram = tuple[Float64Array, IntArray, IntArray]
"""Edges [B + 1] of bins, and the numbers of targets and of non-targets [B] with scores between them."""

Speakers = tuple[IntArray, IntArray]
"""Speaker numbers [M] of the enrolment and of the test side."""


def figures(
    scores: FloatArray, target: BoolArray, points: Sequence[OperatingPoint] = STANDARD, calibrated: bool = False
) -> tuple[dict[str, Any], Roc]:
    """Return the figures of scores [M], target [M], with EERs in percent, and their ROC.

    Every metric is one line here: its name in result files, and the function that computes it. Detection costs are
    measured at `points`. If `calibrated`, scores are natural log-likelihood ratios, and Cllr and actDCF are measured.

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
    result["min_cllr"] = min_cllr(hull)
    return result | _count_classes(target), roc


def operating(
    roc: Roc,
    scores: FloatArray,
    target: BoolArray,
    points: Sequence[OperatingPoint],
    false_alarms: Sequence[float],
    misses: Sequence[float],
) -> dict[str, Any]:
    """Return thresholds, and each error rate where the other one is bounded; all rates are in percent.

    The ROC is that of the scores [M], target [M]. `min_dcf_…_threshold` is None where accepting everything costs least.
    `frr_at_far_…` is the miss rate at each of `false_alarms`, `far_at_frr_…` the false-alarm rate at each of `misses`.
    """
    result: dict[str, Any] = {"eer_threshold": eer_threshold(roc, scores, target)}
    for point in points:
        threshold = min_dcf_threshold(roc, point)
        result[f"min_dcf_{point.name}_threshold"] = threshold if np.isfinite(threshold) else None
    result |= {f"frr_at_far_{rate:g}": 100 * miss_at(roc, rate / 100) for rate in false_alarms}
    return result | {f"far_at_frr_{rate:g}": 100 * false_alarm_at(roc, rate / 100) for rate in misses}


def by_group(
    scores: FloatArray,
    target: BoolArray,
    groups: Sequence[str] | NDArray[np.str_],
    points: Sequence[OperatingPoint] = STANDARD,
    calibrated: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return the `figures` of each group of trials by its label, sorted by label.

    A group with only one class has only its counts, because no error rate can be measured on it.
    Groups are labels of the trials [M], such as gender, age, duration or condition; see `figures` for the others.

    Raises:
        TrialError: see `check_trials`; or the numbers of labels and trials differ.
    """
    check_trials(scores, target)
    if len(groups) != len(target):
        raise TrialError(f"{len(groups):,} group labels of {len(target):,} trials. Give one label for each trial.")
    labels, numbers, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    result: dict[str, dict[str, Any]] = {}
    for label, trials in zip(map(str, labels), members, strict=True):
        own = target[trials]
        measurable = own.any() and not own.all()
        result[label] = figures(scores[trials], own, points, calibrated)[0] if measurable else _count_classes(own)
    return result


def histogram(scores: FloatArray, target: BoolArray, bins: int = 100) -> Histogram:
    """Return shared edges [B + 1] of bins, and the numbers of targets and of non-targets [B] between them.

    Raises:
        TrialError: see `check_trials`.
    """
    check_trials(scores, target)
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high, bins + 1)
    if not (np.diff(edges) > 0).all():  # scores so close that floats between them do not suffice
        spare = max(0.5, 1e-9 * abs(low))
        edges = np.linspace(low - spare, high + spare, bins + 1)
    targets, _ = np.histogram(scores[target], edges)
    nontargets, _ = np.histogram(scores[~target], edges)
    return edges, targets, nontargets


def compare(
    scores: Mapping[str, FloatArray],
    target: BoolArray,
    speakers: Speakers | None,
    points: Sequence[OperatingPoint] = STANDARD,
    resamples: int = 0,
    seed: int = 0,
    costs: bool = False,
    calibrated: Collection[str] = (),
) -> tuple[dict[str, dict[str, Any]], dict[str, Roc], Float64Array | None]:
    """Return the figures and ROCs of several systems on the same trials, each compared with the first.

    The third value holds the bootstrap replicates [resamples, systems, statistics] behind the intervals, if there are
    any.

    In addition to its `figures`, each system has `eer_ci`, the 95 % interval of its EER by bootstrap over speakers
    (if speakers are known). All but the first also have `eer_difference`, their EER minus the first's in percentage
    points, with `eer_difference_ci` and the two-sided `p_value` of no difference, from the same draws for both.

    Scores and `target` are [M]. Speakers are those of both sides, None if unknown. With 0 resamples of the bootstrap,
    there are no intervals and p-values. With `costs`, the minDCFs are compared, too, as `min_dcf_…_difference`,
    `min_dcf_…_difference_ci` and `min_dcf_…_p_value`. `calibrated` names the systems whose scores are natural
    log-likelihood ratios.

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
    resampled = None
    if speakers and resamples:
        rankings = [Ranking.from_scores(values, target) for values in scores.values()]
        statistics: list[Callable[[Roc], float]] = [_eer_percent]
        statistics += [partial(min_dcf, point=point) for point in compared]
        resampled = replicates(rankings, *speakers, statistics, resamples, seed)
        for system, (name, result) in enumerate(table.items()):
            baseline = resampled[:, 0] if system else None
            table[name] = _with_intervals(result, keys, resampled[:, system], baseline)
    return table, {name: roc for name, (_, roc) in measured.items()}, resampled


def mean_compared(
    tables: Sequence[Mapping[str, Mapping[str, Any]]], resampled: Sequence[Float64Array | None]
) -> dict[str, dict[str, Any]]:
    """Return the mean EER of every system over several conditions, with intervals like those of `compare`.

    Args:
        tables: results of `compare`, one for each condition, on the same trials.
        resampled: replicates of `compare` for each condition. Their first statistic is the EER. They come from the same
            draws of speakers, because the trials and the seed are the same.
    """
    names = list(tables[0])
    table = {name: {"eer": float(np.mean([each[name]["eer"] for each in tables]))} for name in names}
    for name in names[1:]:
        table[name]["eer_difference"] = table[name]["eer"] - table[names[0]]["eer"]
    known = [values[:, :, :1] for values in resampled if values is not None]
    if len(known) < len(resampled):
        return table
    means = np.mean(known, axis=0)
    return {
        name: _with_intervals(table[name], ["eer"], means[:, system], means[:, 0] if system else None)
        for system, name in enumerate(names)
    }


def _eer_percent(roc: Roc) -> float:
    return 100 * eer(roc)


def _count_classes(target: BoolArray) -> dict[str, Any]:
    targets = int(target.sum())
    return {"targets": targets, "nontargets": len(target) - targets}


def _with_intervals(
    result: Mapping[str, Any], keys: Sequence[str], resampled: Float64Array, baseline: Float64Array | None
) -> dict[str, Any]:
    """Insert intervals and p-values from replicates [R, keys], each after its figure."""
    extended: dict[str, Any] = {}
    for name, value in result.items():
        extended[name] = value
        key = name.removesuffix("_difference")
        if key not in keys:
            continue
        if name == key:
            extended[f"{key}_ci"] = list(interval(resampled[:, keys.index(key)]))
        elif baseline is not None:
            differences = resampled[:, keys.index(key)] - baseline[:, keys.index(key)]
            extended[f"{name}_ci"] = list(interval(differences))
            extended["p_value" if key == "eer" else f"{key}_p_value"] = p_value(differences)
    return extended
