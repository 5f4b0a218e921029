"""Measure systems on the same trials, for every condition, every list and every entry of `score.systems`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.score import COHORT, Score, System
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.errors import ConfigError, TrialError
from pipeline.metrics import Histogram, Roc, by_group, compare, histogram, mean_compared, thin
from pipeline.scoring import groups
from pipeline.scoring.cohort import Cohort, count_overlap
from pipeline.scoring.condition_stores import ConditionStores
from pipeline.scoring.systems import PreparedSide, ScoringSystems
from pipeline.store.schema import OK
from pipeline.utils.array_types import BoolArray, Float64Array, FloatArray

RowAndSystem = tuple[str, str]
_ComparedRow = tuple[dict[str, dict[str, Any]], Float64Array | None]
"""The figures of a row by system, and their bootstrap replicates; see `metrics.compare`."""


@dataclass
class Outcome:
    """Results by row and system; a row is a condition, a list, or `<list>/<condition>`."""

    table: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """The figures by row and system, see `metrics.compare`."""
    rocs: dict[RowAndSystem, Roc] = field(default_factory=dict)
    """The ROCs, thinned for plots."""
    histograms: dict[RowAndSystem, Histogram] = field(default_factory=dict)
    """The histograms of scores, see `metrics.histogram`."""
    mean_noisy: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The mean EER of each system over all conditions except the enrolment's, for all pairs; see `mean_compared`."""
    both_noisy: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """The figures by condition and system of all pairs with both sides in that condition, if `score.both_sides`."""
    mean_both_noisy: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The mean EER of each system over `both_noisy`."""
    groups: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    """The figures of groups by row, system and column, see `metrics.by_group`."""
    warnings: list[str] = field(default_factory=list)
    """Reasons to doubt the figures."""


def usable_mask(sources: Mapping[str, ConditionStores]) -> BoolArray:
    """Return a mask of the utterances [N] that failed in no store, so that systems and conditions are comparable."""
    stores = [store for source in sources.values() for store in source.stores.values()]
    return np.asarray(np.all([store.status == OK for store in stores], axis=0))


def find_failed(sources: Mapping[str, ConditionStores]) -> list[str]:
    """Return the ids of the utterances that failed in some store, in row order; no trial has them."""
    ids = next(iter(sources.values())).ids
    return [name for name, usable in zip(ids, usable_mask(sources), strict=True) if not usable]


def pair_utterances(utterances: Utterances, usable: BoolArray, limit: int, seed: int, manifest: Path) -> Trials:
    """Return trials of all pairs of usable utterances [N]; see `make_all_pairs`.

    Raises:
        TrialError: a speaker is unknown, or there are no trials of one class.
    """
    rows = np.flatnonzero(usable)
    speakers = []
    for row in rows:
        if (speaker := utterances.speakers[row]) is None:
            raise TrialError(
                f"{manifest}: utterance {utterances.ids[row]!r} has no speaker. Add the speaker column, or give a trial"
                " list."
            )
        speakers.append(speaker)
    pairs = make_all_pairs(speakers, limit, seed)
    return Trials(rows[pairs.enrol], rows[pairs.test], pairs.target)


def evaluate(
    sources: Mapping[str, ConditionStores],
    lists: Mapping[str, Trials],
    conditions: Sequence[str],
    enrolment: str,
    utterances: Utterances,
    score: Score,
    seed: int,
    cohort: Cohort | None = None,
    progress: Callable[[], None] | None = None,
) -> Outcome:
    """Measure every system on every list in every condition, with enrolment in one condition.

    Each source is a system with its own name, compared by `score.comparison`; `score.systems` adds more systems. A list
    that calibrates a system is not measured.

    Lists are labelled trials by name, as rows of the stores that failed nowhere; the list of all pairs is named "".
    `conditions` are those of the test side. Intervals need the speakers of all trials. `seed` is that of bootstrap,
    cohort and calibration. `progress` is called after each row.

    Raises:
        ConfigError: a system names unknown vectors, lists or systems, or lacks a cohort or model.
        TrialError: a list or a cohort has no trials of one class, or scores are not finite.
        StoreError: a store is damaged.
    """
    systems = {name: System(of=name) for name in sources} | score.systems
    measured = _select_measured(systems, sources, lists)
    scorers = ScoringSystems(sources, systems, utterances, score, seed, cohort)
    outcome = Outcome(warnings=_find_warnings(utterances, lists, measured, cohort))
    enrolled = scorers.prepare(scorers.read_vectors(enrolment), utterances.seconds)
    calibrations = {name: scorers.calibrate(name, lists, conditions, enrolled) for name in systems}
    calibrated = frozenset(system for system, calibration in calibrations.items() if calibration)
    numbers, labels = utterances.numbers(), groups.label_groups(utterances, score.groups)
    noisy_rows, both_noisy_rows = list[_ComparedRow](), list[_ComparedRow]()

    def measure(
        trials: Trials, enrol: PreparedSide, test: PreparedSide
    ) -> tuple[dict[str, FloatArray], _ComparedRow, dict[str, Roc]]:
        assert trials.target is not None  # lists are labelled
        speakers = numbers[trials.enrol], numbers[trials.test]
        known = speakers if all((side >= 0).all() for side in speakers) else None
        scores = {system: scorers.score(system, enrol, test, trials, calibrations) for system in systems}
        table, rocs, resampled = compare(
            scores, trials.target, known, score.operating_points, score.bootstrap, seed, calibrated=calibrated
        )
        return scores, (table, resampled), rocs

    for condition in conditions:
        tested = scorers.prepare(scorers.read_vectors(condition), utterances.seconds)
        for name in measured:
            trials = lists[name]
            row = condition if not name else name if condition == enrolment else f"{name}/{condition}"
            scores, compared, rocs = measure(trials, enrolled, tested)
            outcome.table[row] = compared[0]
            assert trials.target is not None  # lists are labelled
            outcome.rocs |= {(row, system): thin(roc) for system, roc in rocs.items()}
            for system, values in scores.items():
                outcome.histograms[row, system] = histogram(values, trials.target)
            for column, (names, index) in labels.items():
                trial_groups = groups.group_trials(names, (index[trials.enrol], index[trials.test]))
                for system, values in scores.items():
                    outcome.groups[row, system, column] = by_group(
                        values, trials.target, trial_groups, score.operating_points, system in calibrated
                    )
            if condition != enrolment:
                noisy_rows.append(compared)
                if score.both_sides and not name:
                    both_noisy_rows.append(measure(trials, tested, tested)[1])
                    outcome.both_noisy[condition] = both_noisy_rows[-1][0]
            if progress:
                progress()
    if noisy_rows and measured == [""]:
        outcome.mean_noisy = mean_compared(*zip(*noisy_rows, strict=True))
    if both_noisy_rows:
        outcome.mean_both_noisy = mean_compared(*zip(*both_noisy_rows, strict=True))
    return outcome


def _select_measured(
    systems: Mapping[str, System], sources: Mapping[str, ConditionStores], lists: Mapping[str, Trials]
) -> list[str]:
    """Return the names of the lists to measure; ConfigError if systems name unknown systems or lists."""
    for name, system in systems.items():
        if name in sources and system.of != name:
            raise ConfigError(f"score.systems.{name}: a --system already has this name. Choose another.")
        for member in system.fuse:
            if member not in systems or systems[member].fuse:
                others = ", ".join(each for each, other in systems.items() if not other.fuse)
                raise ConfigError(f"score.systems.{name}: cannot fuse {member!r}. Choose from {others}.")
        if system.calibrate not in (None, COHORT, *filter(None, lists)):
            known = ", ".join([COHORT, *filter(None, lists)])
            raise ConfigError(
                f"score.systems.{name}: no list {system.calibrate!r} to calibrate on. Choose from {known}."
            )
    calibrating = {system.calibrate for system in systems.values()}
    measured = [name for name in lists if name not in calibrating]
    if not measured:
        raise ConfigError("score.systems: all lists are used to calibrate, none is left to measure. Add another.")
    return measured


def _find_warnings(
    utterances: Utterances, lists: Mapping[str, Trials], measured: Sequence[str], cohort: Cohort | None
) -> list[str]:
    """Return warnings about speakers that measured trials share with the cohort or with calibration lists."""
    rows = {name: set(np.unique([trials.enrol, trials.test]).tolist()) for name, trials in lists.items()}
    tested = set[int]().union(*(rows[name] for name in measured))
    warnings = []
    if cohort:
        names = [utterances.ids[row] for row in tested]
        same, speakers = count_overlap(cohort, names, dict(zip(utterances.ids, utterances.speakers, strict=True)))
        if same or speakers:
            warnings.append(
                f"{cohort.path}: {same:,} utterances and {speakers:,} speakers of the cohort are in the trials, which"
                " makes scores look better than they are. Take other speakers."
            )
    for name in lists.keys() - set(measured):
        shared = _known_speakers(utterances, rows[name]) & _known_speakers(utterances, tested)
        if shared:
            warnings.append(f"trial list {name}: calibrates, but shares {len(shared):,} speakers with those measured.")
    return sorted(warnings)


def _known_speakers(utterances: Utterances, rows: set[int]) -> set[str]:
    return {speaker for row in rows if (speaker := utterances.speakers[row])}
