"""Gain of enhancement by the gap of the test side, and the gaps at which it starts and stops helping."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from pipeline.metrics import Ranking, Roc, eer, interval, p_value, replicates
from pipeline.metrics.summary import Speakers
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray, IntArray


class GapBin(NamedTuple):
    """EERs in percent of trials in one range of gaps, each with its 95 % interval."""

    low: float
    high: float
    mean: float
    """The mean gap of the test sides."""
    targets: int
    nontargets: int
    raw: tuple[float, float, float]
    seed: tuple[float, float, float]
    gain: tuple[float, float, float]
    """The raw EER minus the enhanced one, in percentage points."""
    p_value: float


class SignChange(NamedTuple):
    """A gap at which the gain changes its sign, and its 95 % interval; infinite if outside of the range."""

    value: float
    low: float
    high: float
    share: float
    """The share of replicates with a sign change within the range."""


COLUMNS = (
    *("encoder", "space", "gap_low", "gap_high", "gap_mean", "targets", "nontargets"),
    *(f"{figure}{end}" for figure in ("eer_raw", "eer_seed", "gain") for end in ("", "_low", "_high")),
    "p_value",
)
SIGN_CHANGE_COLUMNS = ("encoder", "space", "what", "gap", "gap_low", "gap_high", "share")
STARTS, STOPS = "helps from", "helps up to"


def quantile_edges(gaps: Float64Array, bins: int) -> Float64Array:
    """Return the edges of bins with equal numbers of gaps [N]; there are fewer bins if many gaps are equal."""
    return np.unique(np.quantile(gaps, np.linspace(0, 1, bins + 1)))


def measure_by_gap(
    gaps: Float64Array,
    edges: Float64Array,
    raw: FloatArray,
    seed_scores: FloatArray,
    target: BoolArray,
    speakers: Speakers,
    resamples: int,
    seed: int,
) -> tuple[list[GapBin], Float64Array]:
    """Measure both systems in every bin of gaps, on the same draws of speakers.

    Returns the bins and the replicates of the gain [resamples, bins]. Trials with gap 0 (clean ones) have a bin of
    their own, the first. Bins without trials of both classes are left out.

    Args:
        gaps: gap of each trial's test side [M].
        edges: edges of the bins [B + 1]; gaps outside belong to the first or the last bin.
        raw: scores [M] of the raw vectors.
        seed_scores: scores [M] of the enhanced vectors.
        target: whether both sides are the same speaker [M].
        speakers: speakers of both sides.
        resamples: number of bootstrap resamples over speakers, at least 1.
        seed: seed of the bootstrap.

    Raises:
        TrialError: scores are not finite.
    """
    numbers = np.where(gaps == 0, -1, np.searchsorted(edges[1:-1], gaps, side="right"))
    members = [np.flatnonzero(numbers == number) for number in range(-1, len(edges) - 1)]
    members = [trials for trials in members if _has_both_classes(trials, target)]
    rankings = [_rank(scores, target, trials) for trials in members for scores in (raw, seed_scores)]
    eers = np.empty((resamples, 0, 2))
    if members:
        # Rankings refer to trials by number, so one draw can measure the rankings of several bins.
        eers = 100 * replicates(rankings, *speakers, [eer], resamples, seed)[:, :, 0].reshape(resamples, -1, 2)
    gains = eers[:, :, 0] - eers[:, :, 1]
    bins = list[GapBin]()
    for place, trials in enumerate(members):
        raw_eer, seed_eer = (100 * eer(_unweighted_roc(ranking)) for ranking in rankings[2 * place : 2 * place + 2])
        number = numbers[trials[0]]
        low, high = (0.0, 0.0) if number < 0 else (float(edges[number]), float(edges[number + 1]))
        targets = int(target[trials].sum())
        bins.append(
            GapBin(
                *(low, high, float(gaps[trials].mean()), targets, len(trials) - targets),
                (raw_eer, *interval(eers[:, place, 0])),
                (seed_eer, *interval(eers[:, place, 1])),
                (raw_eer - seed_eer, *interval(gains[:, place])),
                p_value(gains[:, place]),
            )
        )
    return bins, gains


def find_sign_changes(
    gaps: Sequence[float], gain: Sequence[float], resampled: Float64Array
) -> tuple[SignChange, SignChange]:
    """Return the gaps from which and up to which enhancement helps, by linear interpolation between bins.

    Args:
        gaps: mean gaps of the bins [B], rising.
        gain: gains of the bins [B].
        resampled: replicates of the gains [R, B].
    """
    changes = []
    for find in (partial(_find_sign_change, gaps, stop=stop) for stop in (False, True)):
        values = np.array([find(line) for line in resampled])
        inside = np.isfinite(values)
        low, high = np.quantile(values, [0.025, 0.975], method="nearest") if len(values) else (np.nan, np.nan)
        share = float(inside.mean()) if len(values) else 0.0
        changes.append(SignChange(find(gain), float(low), float(high), share))
    return changes[0], changes[1]


def _find_sign_change(gaps: Sequence[float], gain: Sequence[float] | Float64Array, stop: bool) -> float:
    """Return the gap below which, or with `stop` above which, the gain is never positive; infinite outside."""
    positive = np.flatnonzero(np.asarray(gain) > 0)
    if len(positive) == 0:
        return -np.inf if stop else np.inf
    before = int(positive[-1] if stop else positive[0] - 1)
    if before in (-1, len(gain) - 1):
        return np.inf if stop else -np.inf
    low, high = float(gain[before]), float(gain[before + 1])
    share = low / (low - high)
    return float(gaps[before] + share * (gaps[before + 1] - gaps[before]))


def _has_both_classes(trials: IntArray, target: BoolArray) -> bool:
    return bool(len(trials) and target[trials].any() and not target[trials].all())


def _rank(scores: FloatArray, target: BoolArray, trials: IntArray) -> Ranking:
    """Rank some of the trials, and refer to them by their numbers among all trials."""
    ranking = Ranking.from_scores(scores[trials], target[trials])
    return replace(ranking, targets=trials[ranking.targets], nontargets=trials[ranking.nontargets])


def _unweighted_roc(ranking: Ranking) -> Roc:
    return ranking.roc(np.arange(len(ranking.targets) + 1), np.arange(len(ranking.nontargets) + 1))
