"""How much of the gain carries over: from speakers and sounds like those of training to others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import make_all_pairs
from pipeline.metrics import compare, interval
from pipeline.report.limits.gaps import CLEAN
from pipeline.scoring.comparison import Vectors, cosine_scores, mean_units, unit_crops

Floats = NDArray[np.float64]
MEAN = "mean"
"""The row of the mean EER over all conditions but clean."""


@dataclass(frozen=True)
class Group:
    """Utterances of some speakers, clean and corrupted by some sounds."""

    name: str
    vectors: Mapping[str, Vectors]
    """Raw embeddings [N, crops, D] by condition, `CLEAN` first."""
    speakers: Sequence[str]


class Result(NamedTuple):
    """A group in a condition. EERs in percent, the reduction as a share of the raw EER, intervals of 95 %."""

    group: str
    condition: str
    speakers: int
    utterances: int
    targets: int
    gap: float
    """Median distance of the unit vectors to the clean ones; NaN for clean and for the mean."""
    raw: tuple[float, float, float]
    seed: tuple[float, float, float]
    reduction: tuple[float, float, float]


class Kept(NamedTuple):
    """The reduction in one group as a share of that in another, with its 95 % interval."""

    condition: str
    source: str
    goal: str
    share: tuple[float, float, float]


COLUMNS = (
    *("encoder", "group", "condition", "speakers", "utterances", "targets", "gap_median"),
    *(f"{what}{end}" for what in ("eer_raw", "eer_seed", "reduction") for end in ("", "_low", "_high")),
)
KEPT_COLUMNS = ("encoder", "condition", "from", "to", "share", "share_low", "share_high")

Drawn = dict[tuple[str, str], Floats]
"""Replicates of the reduction by group and condition."""


def measure(
    group: Group, to_seed: Callable[[Vectors], Vectors], limit: int, resamples: int, seed: int
) -> tuple[list[Result], Drawn]:
    """Measure raw and enhanced vectors of a group, all pairs of utterances, enrolled clean; and their mean.

    Args:
        group: two speakers or more.
        to_seed: enhances embeddings [N, crops, D].
        limit: most trials of a condition.
        resamples: of the bootstrap over speakers, at least 1.
        seed: of that, and of the choice of trials.

    Raises:
        TrialError: there are no trials of one class.
    """
    trials = make_all_pairs(list(group.speakers), limit, seed)
    assert trials.target is not None  # speakers are known
    _, numbers = np.unique(np.asarray(group.speakers), return_inverse=True)
    who = numbers[trials.enrol], numbers[trials.test]
    enrolled = {"raw": _units(group.vectors[CLEAN]), "seed": _units(to_seed(group.vectors[CLEAN]))}
    results, replicates, drawn = list[Result](), dict[str, Floats](), Drawn()
    facts = int(numbers.max()) + 1, len(numbers), int(trials.target.sum())
    for condition, values in group.vectors.items():
        tested = {"raw": _units(values), "seed": _units(to_seed(values))}
        scores = {name: cosine_scores(enrolled[name], tested[name], trials) for name in enrolled}
        table, _, made = compare(scores, trials.target, who, (), resamples, seed)
        assert made is not None  # speakers and resamples are given
        gap = float(np.median(np.linalg.norm(tested["raw"] - enrolled["raw"], axis=1)))
        eers = {name: table[name]["eer"] for name in scores}
        replicates[condition] = made[:, :, 0]
        found = _result(group.name, condition, facts, np.nan if condition == CLEAN else gap, eers, made[:, :, 0])
        results.append(found)
    noisy = [name for name in group.vectors if name != CLEAN]
    replicates[MEAN] = np.mean([replicates[name] for name in noisy], axis=0)
    at = {result.condition: result for result in results}
    eers = {
        "raw": float(np.mean([at[name].raw[0] for name in noisy])),
        "seed": float(np.mean([at[name].seed[0] for name in noisy])),
    }
    results.append(_result(group.name, MEAN, facts, np.nan, eers, replicates[MEAN]))
    for name, made in replicates.items():
        drawn[group.name, name] = _reductions(made)
    return results, drawn


def sides(
    group: Group, condition: str, to_seed: Callable[[Vectors], Vectors]
) -> tuple[tuple[Vectors, Vectors], tuple[Vectors, Vectors]]:
    """Return clean and corrupted unit vectors [N, D] of a group, raw and enhanced."""
    both = group.vectors[CLEAN], group.vectors[condition]
    raw, seed = (_units(values) for values in both), (_units(to_seed(values)) for values in both)
    return (next(raw), next(raw)), (next(seed), next(seed))


def kept(results: Sequence[Result], drawn: Drawn, pairs: Sequence[tuple[str, str]]) -> list[Kept]:
    """Return how much of the reduction of one group is there in another, for all conditions that both have.

    Args:
        results: of `measure`, of all groups.
        drawn: of `measure`, of all groups; groups are of different speakers or sounds, their draws independent.
        pairs: from and to, by name; those that were not measured are left out.
    """
    at = {(result.group, result.condition): result for result in results}
    found = []
    for source, goal in pairs:
        for condition in dict.fromkeys(result.condition for result in results):
            if condition == CLEAN or not {(source, condition), (goal, condition)} <= at.keys():
                continue
            base = at[source, condition].reduction[0]
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = drawn[goal, condition] / drawn[source, condition]
            shares = shares[np.isfinite(shares)]
            share = at[goal, condition].reduction[0] / base if base else np.nan
            ends = interval(shares) if len(shares) else (np.nan, np.nan)
            found.append(Kept(condition, source, goal, (share, *ends)))
    return found


def cells(encoder: str, results: Sequence[Result]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a CSV of `COLUMNS`."""
    for row in results:
        figures = (f"{value:.6f}" for value in (*row.raw, *row.seed, *row.reduction))
        gap = "" if np.isnan(row.gap) else f"{row.gap:.6f}"
        yield encoder, row.group, row.condition, row.speakers, row.utterances, row.targets, gap, *figures


def _result(
    group: str,
    condition: str,
    facts: tuple[int, int, int],
    gap: float,
    eers: Mapping[str, float],
    made: Floats,
) -> Result:
    """Put figures and the intervals of their replicates [R, 2] together."""
    share = (eers["raw"] - eers["seed"]) / eers["raw"] if eers["raw"] else np.nan
    sides = [(eers[name], *interval(made[:, place])) for place, name in enumerate(("raw", "seed"))]
    reductions = _reductions(made)
    ends = interval(reductions[np.isfinite(reductions)]) if np.isfinite(reductions).any() else (np.nan, np.nan)
    return Result(group, condition, *facts, gap, sides[0], sides[1], (share, *ends))


def _reductions(made: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((made[:, 0] - made[:, 1]) / made[:, 0])


def _units(crops: Vectors) -> Vectors:
    return mean_units(unit_crops(crops))
