"""All systems on the same utterances, with their calibrations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.score import COHORT, QualityMeasure, Score, System
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.errors import ConfigError, TrialError
from pipeline.scoring.backends.calibration import Calibration, fit_calibration, stack_quality
from pipeline.scoring.cohort import Cohort
from pipeline.scoring.condition_stores import ConditionStores
from pipeline.scoring.system import CLEAN_VIEW, ScoringSystem, SystemSide, build_system, convert_to_sources
from pipeline.store.zeros import require_directions
from pipeline.utils.array_types import BoolArray, Float32Array, Float64Array, FloatArray

ScorerKey = tuple[str, bool]
"""The name of a system, and whether it was trained on half of the cohort, because the other half calibrates it."""


@dataclass(frozen=True)
class PreparedSide:
    """One side of trials, prepared for every system, and the quality measures of its utterances [N]."""

    sides: Mapping[ScorerKey, SystemSide]
    quality: Mapping[QualityMeasure, Float64Array]


class ScoringSystems:
    """Systems that are ready to score."""

    def __init__(
        self,
        sources: Mapping[str, ConditionStores],
        systems: Mapping[str, System],
        utterances: Utterances,
        score: Score,
        seed: int,
        cohort: Cohort | None,
    ) -> None:
        """Build every system; see `build_system` for the errors."""
        self._sources, self._systems, self._utterances, self._seed = sources, systems, utterances, seed
        self._limit = score.max_trials
        needs = [name for name, system in systems.items() if system.calibrate == COHORT]
        if needs and cohort is None:
            raise ConfigError(f"score.systems.{needs[0]}: needs a cohort. Give its store with --cohort.")
        self._halves = cohort.split_speakers(seed) if cohort and needs else None
        self._scorers: dict[ScorerKey, ScoringSystem] = {}
        for name, system in systems.items():
            for member, half in self._scorer_keys(name) if system.calibrate or not system.fuse else ():
                training = self._halves[0] if half and self._halves else cohort
                if (member, half) not in self._scorers:
                    self._scorers[member, half] = build_system(
                        member, systems[member], sources, training, score.cohort, score.comparison, seed
                    )

    def read_vectors(self, condition: str) -> dict[str, Float32Array]:
        """Read the vectors [N, crops, D] of all sources in a condition; StoreError if one is zero."""
        vectors = {}
        for name, source in self._sources.items():
            store = source.stores[condition]
            vectors[name] = store.read()[:, :, CLEAN_VIEW]
            require_directions(store, range(len(store.utterances)), vectors[name])  # failed rows are NaN
        return vectors

    def prepare(
        self,
        vectors: Mapping[str, Float32Array],
        seconds: Sequence[float | None],
        keys: Sequence[ScorerKey] | None = None,
    ) -> PreparedSide:
        """Prepare a side for some scorers (by default all), from vectors [N, crops, D] by source and durations."""
        sides = {key: self._scorers[key].prepare_side(vectors) for key in (self._scorers if keys is None else keys)}
        measures = {measure for system in self._systems.values() for measure in system.quality}
        raw = next((name for name, source in self._sources.items() if not source.enhanced), None)
        quality: dict[QualityMeasure, Float64Array] = {}
        if "duration" in measures:
            quality["duration"] = np.array([math.log(each) if each else math.nan for each in seconds])
        if "norm" in measures:
            if raw is None:
                raise ConfigError("score.systems: quality norm needs raw embeddings. Add their folder with --system.")
            quality["norm"] = np.linalg.norm(vectors[raw], axis=2).mean(axis=1).astype(np.float64)
        return PreparedSide(sides, quality)

    def score(
        self,
        name: str,
        enrol: PreparedSide,
        test: PreparedSide,
        trials: Trials,
        calibrations: Mapping[str, Calibration | None],
    ) -> FloatArray:
        """Return the scores [M] of a system; a fusion without calibration averages the scores of its members."""
        system, calibration = self._systems[name], calibrations[name]
        if calibration:
            return calibration.apply(self._score_columns(name, enrol, test, trials))
        if system.fuse:
            members = [self.score(member, enrol, test, trials, calibrations) for member in system.fuse]
            return np.asarray(np.mean(members, axis=0))
        return self._score_columns(name, enrol, test, trials)[:, 0]

    def calibrate(
        self, name: str, lists: Mapping[str, Trials], conditions: Sequence[str], enrolled: PreparedSide
    ) -> Calibration | None:
        """Fit a system's calibration to its list in all conditions, or to the cohort's pairs in all views.

        The enrolment side is always clean, as in the measured trials.

        Raises:
            TrialError: see `fit_calibration`; or a quality measure is unknown.
        """
        system = self._systems[name]
        if system.calibrate is None:
            return None
        keys, columns, targets = self._scorer_keys(name), list[FloatArray](), list[BoolArray]()
        if system.calibrate == COHORT and self._halves:
            cohort = self._halves[1]
            seconds: Sequence[float | None] = [1.0] * len(cohort.utterances)  # all crops have the same length
            count = cohort.values.shape[2]
            views = [convert_to_sources(cohort.values[:, :, view], self._sources) for view in range(count)]
            trials = make_all_pairs(list(map(str, cohort.speakers)), max(2, self._limit // count), self._seed)
            tests = [self.prepare(view, seconds, keys) for view in views]
            enrolled = tests[CLEAN_VIEW]
        else:
            trials, seconds = lists[system.calibrate], self._utterances.seconds
            tests = [self.prepare(self.read_vectors(condition), seconds, keys) for condition in conditions]
        for test in tests:
            columns.append(self._score_columns(name, enrolled, test, trials))
            assert trials.target is not None  # lists and pairs have labels
            targets.append(trials.target)
        return fit_calibration(np.concatenate(columns), np.concatenate(targets))

    def _score_columns(self, name: str, enrol: PreparedSide, test: PreparedSide, trials: Trials) -> FloatArray:
        """Return the inputs of a system's calibration [M, F]: scores of its members, and both sides' quality."""
        columns: list[FloatArray] = [
            self._scorers[key].score(enrol.sides[key], test.sides[key], trials)[:, None]
            for key in self._scorer_keys(name)
        ]
        for measure in self._systems[name].quality:
            both = stack_quality(enrol.quality[measure][trials.enrol], test.quality[measure][trials.test])
            if not np.isfinite(both).all():
                needed = {"duration": "the seconds", "norm": "raw embeddings"}[measure]
                raise TrialError(f"score.systems.{name}: quality {measure} needs {needed} of all utterances of trials.")
            columns.append(both)
        return np.concatenate(columns, axis=1)

    def _scorer_keys(self, name: str) -> list[ScorerKey]:
        """Return the keys of the scorers that a system's scores come from."""
        system = self._systems[name]
        half = system.calibrate == COHORT
        return [(each, half and self._systems[each].needs_cohort) for each in system.fuse or [name]]
