"""Transfer of the gain from the speakers and sounds of training to others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.data.trials.table import make_all_pairs
from pipeline.metrics import compare, interval
from pipeline.report.limits.gaps import CLEAN
from pipeline.scoring.comparison import cosine_scores, mean_units, unit_crops
from pipeline.utils.array_types import Float32Array, Float64Array

MEAN = "mean"
"""The name of the mean over all conditions except clean."""


@dataclass(frozen=True)
class TransferGroup:
    """Utterances of a group of speakers, clean and corrupted by a group of sounds."""

    name: str
    vectors: Mapping[str, Float32Array]
    """Raw embeddings [N, crops, D] by condition, `CLEAN` first."""
    speakers: Sequence[str]


class TransferResult(NamedTuple):
    """A group in a condition: EERs in percent, and the reduction as a share of the raw EER, with 95 % intervals."""

    group: str
    condition: str
    speakers: int
    utterances: int
    targets: int
    gap: float
    """The median distance of unit vectors to the clean ones; NaN for clean and for the mean."""
    raw: tuple[float, float, float]
    seed: tuple[float, float, float]
    reduction: tuple[float, float, float]


class RetainedShare(NamedTuple):
    """The reduction in one group as a share of the reduction in another, with its 95 % interval."""

    condition: str
    from_group: str
    to_group: str
    share: tuple[float, float, float]


COLUMNS = (
    *("encoder", "group", "condition", "speakers", "utterances", "targets", "gap_median"),
    *(f"{figure}{end}" for figure in ("eer_raw", "eer_seed", "reduction") for end in ("", "_low", "_high")),
)
RETAINED_COLUMNS = ("encoder", "condition", "from", "to", "share", "share_low", "share_high")

ReductionReplicates = dict[tuple[str, str], Float64Array]
"""Bootstrap replicates of the reduction by group and condition."""


def measure_group(
    group: TransferGroup, to_seed: Callable[[Float32Array], Float32Array], limit: int, resamples: int, seed: int
) -> tuple[list[TransferResult], ReductionReplicates]:
    """Measure raw and enhanced vectors of a group in every condition, and the mean over noisy conditions.

    Trials are all pairs of utterances, with clean enrolment.

    Args:
        group: group of at least two speakers.
        to_seed: function that enhances embeddings [N, crops, D].
        limit: maximum number of trials of a condition.
        resamples: number of bootstrap resamples over speakers, at least 1.
        seed: seed of the bootstrap and of the choice of trials.

    Raises:
        TrialError: there are no trials of one class.
    """
    trials = make_all_pairs(list(group.speakers), limit, seed)
    assert trials.target is not None  # speakers are known
    _, numbers = np.unique(np.asarray(group.speakers), return_inverse=True)
    speakers = numbers[trials.enrol], numbers[trials.test]
    enrolled = {"raw": _mean_units(group.vectors[CLEAN]), "seed": _mean_units(to_seed(group.vectors[CLEAN]))}
    results, eer_replicates = list[TransferResult](), dict[str, Float64Array]()
    counts = int(numbers.max()) + 1, len(numbers), int(trials.target.sum())
    for condition, values in group.vectors.items():
        tested = {"raw": _mean_units(values), "seed": _mean_units(to_seed(values))}
        scores = {name: cosine_scores(enrolled[name], tested[name], trials) for name in enrolled}
        table, _, resampled = compare(scores, trials.target, speakers, (), resamples, seed)
        assert resampled is not None  # speakers and resamples are given
        gap = float(np.median(np.linalg.norm(tested["raw"] - enrolled["raw"], axis=1)))
        eers = {name: table[name]["eer"] for name in scores}
        eer_replicates[condition] = resampled[:, :, 0]
        gap = np.nan if condition == CLEAN else gap
        results.append(_make_result(group.name, condition, counts, gap, eers, eer_replicates[condition]))
    noisy = [name for name in group.vectors if name != CLEAN]
    eer_replicates[MEAN] = np.mean([eer_replicates[name] for name in noisy], axis=0)
    by_condition = {result.condition: result for result in results}
    eers = {
        "raw": float(np.mean([by_condition[name].raw[0] for name in noisy])),
        "seed": float(np.mean([by_condition[name].seed[0] for name in noisy])),
    }
    results.append(_make_result(group.name, MEAN, counts, np.nan, eers, eer_replicates[MEAN]))
    return results, {(group.name, name): _reductions(values) for name, values in eer_replicates.items()}


def make_unit_vectors(
    group: TransferGroup, condition: str, to_seed: Callable[[Float32Array], Float32Array]
) -> tuple[tuple[Float32Array, Float32Array], tuple[Float32Array, Float32Array]]:
    """Return the clean and corrupted unit vectors [N, D] of a group, first raw, then enhanced."""
    both = group.vectors[CLEAN], group.vectors[condition]
    raw, seed = (_mean_units(values) for values in both), (_mean_units(to_seed(values)) for values in both)
    return (next(raw), next(raw)), (next(seed), next(seed))


def measure_retained(
    results: Sequence[TransferResult], replicates: ReductionReplicates, pairs: Sequence[tuple[str, str]]
) -> list[RetainedShare]:
    """Return the share of one group's reduction that another group retains, for all conditions of both.

    Args:
        results: results of `measure_group` for all groups.
        replicates: replicates of `measure_group` for all groups. Groups have different speakers or sounds, so their
            draws are independent.
        pairs: names of groups, from and to; groups without results are skipped.
    """
    by_key = {(result.group, result.condition): result for result in results}
    retained = []
    for pair in pairs:
        for condition in dict.fromkeys(result.condition for result in results):
            from_key, to_key = ((name, condition) for name in pair)
            if condition == CLEAN or not {from_key, to_key} <= by_key.keys():
                continue
            base = by_key[from_key].reduction[0]
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = replicates[to_key] / replicates[from_key]
            shares = shares[np.isfinite(shares)]
            share = by_key[to_key].reduction[0] / base if base else np.nan
            ends = interval(shares) if len(shares) else (np.nan, np.nan)
            retained.append(RetainedShare(condition, *pair, (share, *ends)))
    return retained


def format_results(encoder: str, results: Sequence[TransferResult]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a CSV with `COLUMNS`."""
    for row in results:
        figures = (f"{value:z.6f}" for value in (*row.raw, *row.seed, *row.reduction))
        gap = "" if np.isnan(row.gap) else f"{row.gap:.6f}"
        yield encoder, row.group, row.condition, row.speakers, row.utterances, row.targets, gap, *figures


def _make_result(
    group: str,
    condition: str,
    counts: tuple[int, int, int],
    gap: float,
    eers: Mapping[str, float],
    replicates: Float64Array,
) -> TransferResult:
    """Make a result from EERs and their replicates [R, 2]."""
    share = (eers["raw"] - eers["seed"]) / eers["raw"] if eers["raw"] else np.nan
    sides = [(eers[name], *interval(replicates[:, place])) for place, name in enumerate(("raw", "seed"))]
    reductions = _reductions(replicates)
    ends = interval(reductions[np.isfinite(reductions)]) if np.isfinite(reductions).any() else (np.nan, np.nan)
    return TransferResult(group, condition, *counts, gap, sides[0], sides[1], (share, *ends))


def _reductions(eers: Float64Array) -> Float64Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((eers[:, 0] - eers[:, 1]) / eers[:, 0])


def _mean_units(crops: Float32Array) -> Float32Array:
    return mean_units(unit_crops(crops))
