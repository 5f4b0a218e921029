"""Measure systems on the same trials: every condition, every list, every line of `score.systems`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import COHORT, Score, System
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.errors import ConfigError, TrialError
from pipeline.metrics import Histogram, Roc, by_group, compare, histogram, mean_compared, thin
from pipeline.scoring import groups
from pipeline.scoring.cohort import Cohort, overlap
from pipeline.scoring.condition_stores import ConditionStores
from pipeline.scoring.systems import PreparedSide, ScoringSystems
from pipeline.store.schema import OK

Pair = tuple[str, str]
"""A row of the table, and a system."""
_Compared = tuple[dict[str, dict[str, Any]], NDArray[np.float64] | None]
"""What `metrics.compare` says of a row: its figures by system, and their replicates."""
_Scores = dict[str, NDArray[np.floating]]
"""By system."""


@dataclass
class Outcome:
    """What was measured, by row and system; a row is a condition, a list, or `<list>/<condition>`."""

    table: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """See `metrics.compare`."""
    rocs: dict[Pair, Roc] = field(default_factory=dict)
    """Thinned for plots."""
    histograms: dict[Pair, Histogram] = field(default_factory=dict)
    """See `metrics.histogram`."""
    mean_noisy: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By system: the mean EER over all conditions but that of the enrolment, of all pairs; see `mean_compared`."""
    both: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By condition and system: all pairs with both sides in that condition, where `score.both_sides` asks for it."""
    mean_both: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By system: the mean EER over `both`."""
    groups: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By row, system and column: see `metrics.by_group`."""
    warnings: list[str] = field(default_factory=list)
    """What makes figures doubtful."""


def usable(spaces: Mapping[str, ConditionStores]) -> NDArray[np.bool_]:
    """Return which utterances [N] failed in none of the stores, so that systems and conditions can be compared."""
    stores = [store for space in spaces.values() for store in space.stores.values()]
    return np.asarray(np.all([store.status == OK for store in stores], axis=0))


def every_pair(utterances: Utterances, usable: NDArray[np.bool_], limit: int, seed: int, manifest: Path) -> Trials:
    """Return trials of all pairs of usable utterances [N]; see `make_all_pairs`.

    Raises:
        TrialError: a speaker is unknown, or there are no trials of one class.
    """
    rows = np.flatnonzero(usable)
    speakers = []
    for row in rows:
        speaker = utterances.speakers[row]
        if speaker is None:
            raise TrialError(
                f"{manifest}: utterance {utterances.ids[row]!r} has no speaker; trials need the speaker column, or a"
                " list."
            )
        speakers.append(speaker)
    pairs = make_all_pairs(speakers, limit, seed)
    return Trials(rows[pairs.enrol], rows[pairs.test], pairs.target)


def evaluate(
    spaces: Mapping[str, ConditionStores],
    lists: Mapping[str, Trials],
    conditions: Sequence[str],
    enrolment: str,
    utterances: Utterances,
    score: Score,
    seed: int,
    cohort: Cohort | None = None,
    progress: Callable[[], None] | None = None,
) -> Outcome:
    """Measure every system on every list in every condition, enrolled on `enrolment`; and perhaps all pairs in each.

    Each space is a system by its own name, compared by `score.comparison`; `score.systems` are further ones. A list
    that some system is calibrated on is not measured.

    Args:
        spaces: see `open_condition_stores`.
        lists: trials of known labels by name, as rows of the stores, of utterances that failed nowhere; or those of
            all pairs, by the name "".
        conditions: of the test side.
        enrolment: the condition of the enrolment side.
        utterances: of the stores; intervals need the speakers of all trials.
        score: what to measure, and by which systems.
        seed: of bootstrap, cohort and calibration.
        cohort: which some systems need.
        progress: called as each row is done.

    Raises:
        ConfigError: a system is of vectors, lists or systems that there are not, or needs a cohort or model.
        TrialError: a list or a cohort has no trials of one class, or scores are not finite.
        StoreError: a store is damaged.
    """
    systems = {name: System(of=name) for name in spaces} | score.systems
    measured = _measured(systems, spaces, lists)
    bench = ScoringSystems(spaces, systems, utterances, score, seed, cohort)
    outcome = Outcome(warnings=_warnings(utterances, lists, measured, cohort))
    enrolled = bench.prepare(bench.vectors(enrolment), utterances.seconds)
    learnt = {name: bench.calibrate(name, lists, conditions, enrolled) for name in systems}
    numbers, drawn, kinds = utterances.numbers(), list[_Compared](), groups.labels(utterances, score.groups)
    drawn_both = list[_Compared]()

    def measure(trials: Trials, enrol: PreparedSide, test: PreparedSide) -> tuple[_Scores, _Compared, dict[str, Roc]]:
        assert trials.target is not None  # lists are of known labels
        who = numbers[trials.enrol], numbers[trials.test]
        known = all((side >= 0).all() for side in who)
        scores = {system: bench.scores(system, enrol, test, trials, learnt) for system in systems}
        calibrated = frozenset(system for system, found in learnt.items() if found)
        among, points = who if known else None, score.operating_points
        table, curves, replicates = compare(
            scores, trials.target, among, points, score.bootstrap, seed, calibrated=calibrated
        )
        return scores, (table, replicates), curves

    for condition in conditions:
        tested = bench.prepare(bench.vectors(condition), utterances.seconds)
        for name in measured:
            trials = lists[name]
            row = condition if not name else name if condition == enrolment else f"{name}/{condition}"
            scores, compared, curves = measure(trials, enrolled, tested)
            outcome.table[row] = compared[0]
            assert trials.target is not None  # lists are of known labels
            outcome.rocs |= {(row, system): thin(roc) for system, roc in curves.items()}
            for system, values in scores.items():
                outcome.histograms[row, system] = histogram(values, trials.target)
            for column, labelled in kinds.items():
                names = groups.group_trials(labelled, trials)
                for system, values in scores.items():
                    found = by_group(values, trials.target, names, score.operating_points, bool(learnt[system]))
                    outcome.groups[row, system, column] = found
            if condition != enrolment:
                drawn.append(compared)
                if score.both_sides and not name:
                    drawn_both.append(measure(trials, tested, tested)[1])
                    outcome.both[condition] = drawn_both[-1][0]
            if progress:
                progress()
    if drawn and measured == [""]:
        outcome.mean_noisy = _mean(drawn)
    if drawn_both:
        outcome.mean_both = _mean(drawn_both)
    return outcome


def _mean(compared: Sequence["_Compared"]) -> dict[str, dict[str, Any]]:
    return mean_compared([table for table, _ in compared], [replicates for _, replicates in compared])


def _measured(
    systems: Mapping[str, System], spaces: Mapping[str, ConditionStores], lists: Mapping[str, Trials]
) -> list[str]:
    """Return the lists that are measured; ConfigError if systems name what there is not."""
    for name, system in systems.items():
        if name in spaces and system.of != name:
            raise ConfigError(f"score.systems.{name}: the vectors have that name. Take another.")
        for member in system.fuse:
            if member not in systems or systems[member].fuse:
                others = ", ".join(each for each, other in systems.items() if not other.fuse)
                raise ConfigError(f"score.systems.{name}: cannot fuse {member!r}. There are {others}.")
        if system.calibrate not in (None, COHORT, *filter(None, lists)):
            known = ", ".join([COHORT, *filter(None, lists)])
            raise ConfigError(f"score.systems.{name}: no list {system.calibrate!r} to calibrate on. There are {known}.")
    calibrating = {system.calibrate for system in systems.values()}
    measured = [name for name in lists if name not in calibrating]
    if not measured:
        raise ConfigError("score.systems: all lists are used to calibrate, none is left to measure. Add another.")
    return measured


def _warnings(
    utterances: Utterances, lists: Mapping[str, Trials], measured: Sequence[str], cohort: Cohort | None
) -> list[str]:
    """Return what is wrong with who is in which trials."""
    heard = {name: _heard(trials) for name, trials in lists.items()}
    tested = set[int]().union(*(heard[name] for name in measured))
    warnings = []
    if cohort:
        names = [utterances.ids[row] for row in tested]
        same, speakers = overlap(cohort, names, dict(zip(utterances.ids, utterances.speakers, strict=True)))
        if same or speakers:
            warnings.append(
                f"{cohort.path}: {same:,} utterances and {speakers:,} speakers of the cohort are in the trials, which"
                " makes scores look better than they are. Take other speakers."
            )
    for name in lists.keys() - set(measured):
        shared = _speakers(utterances, heard[name]) & _speakers(utterances, tested)
        if shared:
            warnings.append(f"trial list {name}: calibrates, but shares {len(shared):,} speakers with those measured.")
    return sorted(warnings)


def _heard(trials: Trials) -> set[int]:
    """Return the rows that are in trials."""
    return {*np.unique(trials.enrol).tolist(), *np.unique(trials.test).tolist()}


def _speakers(utterances: Utterances, rows: set[int]) -> set[str]:
    return {speaker for row in rows if (speaker := utterances.speakers[row])}
