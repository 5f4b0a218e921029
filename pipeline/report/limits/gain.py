"""What enhancement gains by how far the test side was moved, and where it starts and stops to help."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import Index
from pipeline.metrics import Ranking, Roc, eer, interval, p_value, replicates
from pipeline.metrics.summary import Speakers

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]


class Bin(NamedTuple):
    """EERs in percent of the trials whose test side was moved about as far; each with its 95 % interval."""

    low: float
    high: float
    mean: float
    """Distance, of the test sides of its trials."""
    targets: int
    nontargets: int
    raw: tuple[float, float, float]
    seed: tuple[float, float, float]
    gain: tuple[float, float, float]
    """Raw minus seed, in percentage points."""
    p_value: float


class Turn(NamedTuple):
    """A distance where the gain changes its sign, and its 95 % interval; infinite where that is beyond the range."""

    value: float
    low: float
    high: float
    share: float
    """Of the replicates, in which there is one within the range."""


COLUMNS = (
    *("encoder", "space", "gap_low", "gap_high", "gap_mean", "targets", "nontargets"),
    *(f"{what}{end}" for what in ("eer_raw", "eer_seed", "gain") for end in ("", "_low", "_high")),
    "p_value",
)
TURN_COLUMNS = ("encoder", "space", "what", "gap", "gap_low", "gap_high", "share")
STARTS, STOPS = "helps from", "helps up to"


def quantile_edges(gaps: Floats, bins: int) -> Floats:
    """Return the edges of bins that hold equally many of the distances [N]; fewer where many are equal."""
    return np.unique(np.quantile(gaps, np.linspace(0, 1, bins + 1)))


def by_gap(
    gaps: Floats,
    edges: Floats,
    raw: Scores,
    seed_scores: Scores,
    target: NDArray[np.bool_],
    speakers: Speakers,
    resamples: int,
    seed: int,
) -> tuple[list[Bin], Floats]:
    """Measure both systems in every bin of distances, on the same draws of speakers.

    Returns the bins, the first of them of trials at distance 0 (clean ones) if there are any, and the replicates of
    the gain [resamples, bins]. Bins without trials of both classes are left out.

    Args:
        gaps: of each trial's test side [M].
        edges: of the bins [B + 1]; a distance outside belongs to the outermost.
        raw: scores [M].
        seed_scores: scores [M] of the enhanced vectors.
        target: [M].
        speakers: of both sides.
        resamples: of the bootstrap over speakers, at least 1.
        seed: of that.

    Raises:
        TrialError: scores are not finite.
    """
    number = np.where(gaps == 0, -1, np.searchsorted(edges[1:-1], gaps, side="right"))
    members = [np.flatnonzero(number == n) for n in range(-1, len(edges) - 1)]
    members = [trials for trials in members if _measurable(trials, target)]
    rankings = [_ranking(scores, target, trials) for trials in members for scores in (raw, seed_scores)]
    drawn = np.empty((resamples, 0, 2))
    if members:
        # Rankings know their trials by number, so those of several bins can be measured on one draw.
        drawn = 100 * replicates(rankings, *speakers, [eer], resamples, seed)[:, :, 0].reshape(resamples, -1, 2)
    gains = drawn[:, :, 0] - drawn[:, :, 1]
    found = list[Bin]()
    for place, trials in enumerate(members):
        ours = rankings[2 * place : 2 * place + 2]
        eers = [100 * eer(_unweighted(ranking)) for ranking in ours]
        ends = [interval(drawn[:, place, system]) for system in (0, 1)]
        bound = number[trials[0]]
        low, high = (0.0, 0.0) if bound < 0 else (float(edges[bound]), float(edges[bound + 1]))
        hits = int(target[trials].sum())
        found.append(
            Bin(
                *(low, high, float(gaps[trials].mean()), hits, len(trials) - hits),
                (eers[0], *ends[0]),
                (eers[1], *ends[1]),
                (eers[0] - eers[1], *interval(gains[:, place])),
                p_value(gains[:, place]),
            )
        )
    return found, gains


def turns(distances: Sequence[float], gain: Sequence[float], drawn: Floats) -> tuple[Turn, Turn]:
    """Return from where on and up to where enhancement helps, by linear interpolation between bins.

    Args:
        distances: of the bins [B], rising.
        gain: of the bins [B].
        drawn: its replicates [R, B].
    """
    found = []
    for way in (_starts, _stops):
        ends = np.array([way(distances, line) for line in drawn])
        inside = np.isfinite(ends)
        low, high = np.quantile(ends, [0.025, 0.975], method="nearest") if len(ends) else (np.nan, np.nan)
        found.append(Turn(way(distances, gain), float(low), float(high), float(inside.mean()) if len(ends) else 0.0))
    return found[0], found[1]


def _stops(distances: Sequence[float], gain: Sequence[float] | Floats) -> float:
    """Return the distance beyond which the gain is never positive: infinite if it is at the end, minus if nowhere."""
    positive = np.flatnonzero(np.asarray(gain) > 0)
    if len(positive) == 0:
        return -np.inf
    last = int(positive[-1])
    return np.inf if last == len(gain) - 1 else _crossing(distances, gain, last)


def _starts(distances: Sequence[float], gain: Sequence[float] | Floats) -> float:
    """Return the distance below which the gain is never positive: minus infinite if it is at once, plus if nowhere."""
    positive = np.flatnonzero(np.asarray(gain) > 0)
    if len(positive) == 0:
        return np.inf
    first = int(positive[0])
    return -np.inf if first == 0 else _crossing(distances, gain, first - 1)


def _crossing(distances: Sequence[float], gain: Sequence[float] | Floats, before: int) -> float:
    here, there = float(gain[before]), float(gain[before + 1])
    share = here / (here - there)
    return float(distances[before] + share * (distances[before + 1] - distances[before]))


def _measurable(trials: Index, target: NDArray[np.bool_]) -> bool:
    return bool(len(trials) and target[trials].any() and not target[trials].all())


def _ranking(scores: Scores, target: NDArray[np.bool_], trials: Index) -> Ranking:
    """Rank some of the trials, which keep their numbers."""
    ranking = Ranking.of(scores[trials], target[trials])
    return replace(ranking, targets=trials[ranking.targets], nontargets=trials[ranking.nontargets])


def _unweighted(ranking: Ranking) -> Roc:
    return ranking.roc(np.arange(len(ranking.targets) + 1), np.arange(len(ranking.nontargets) + 1))
