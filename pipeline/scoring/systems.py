"""All systems side by side on the same utterances, with what calibration has learnt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import COHORT, QualityMeasure, Score, System
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.errors import ConfigError, TrialError
from pipeline.scoring.backends.calibration import Calibration, fit, qmf
from pipeline.scoring.cohort import Cohort
from pipeline.scoring.condition_stores import ConditionStores, Vectors
from pipeline.scoring.system import CLEAN_VIEW, ScoringSystem, Side, build_system, in_spaces

Key = tuple[str, bool]
"""A system, and whether it has seen half of the cohort only, as the other half calibrates."""


@dataclass(frozen=True)
class PreparedSide:
    """One side of trials: what every system makes of its utterances, and their quality [N]."""

    sides: Mapping[Key, Side]
    quality: Mapping[QualityMeasure, NDArray[np.float64]]


class ScoringSystems:
    """Systems that are ready to score."""

    def __init__(
        self,
        spaces: Mapping[str, ConditionStores],
        systems: Mapping[str, System],
        utterances: Utterances,
        score: Score,
        seed: int,
        cohort: Cohort | None,
    ) -> None:
        """Build every system; see `system.build_system` for what is raised."""
        self._spaces, self._systems, self._utterances, self._seed = spaces, systems, utterances, seed
        self._limit = score.max_trials
        needs = [name for name, system in systems.items() if system.calibrate == COHORT]
        if needs and cohort is None:
            raise ConfigError(f"score.systems.{needs[0]}: needs a cohort. Give its store with --cohort.")
        self._halves = cohort.halves(seed) if cohort and needs else None
        self._scorers: dict[Key, ScoringSystem] = {}
        for name, system in systems.items():
            for member, half in self._keys(name) if system.calibrate or not system.fuse else ():
                seen = self._halves[0] if half and self._halves else cohort
                if (member, half) not in self._scorers:
                    self._scorers[member, half] = build_system(
                        member, systems[member], spaces, seen, score.cohort, score.comparison, seed
                    )

    def vectors(self, condition: str) -> dict[str, NDArray[np.float32]]:
        """Read all spaces in a condition."""
        return {name: space.stores[condition].read()[:, :, CLEAN_VIEW] for name, space in self._spaces.items()}

    def prepare(
        self, vectors: Vectors, seconds: Sequence[float | None], keys: Sequence[Key] | None = None
    ) -> PreparedSide:
        """Return what systems (all if not given) make of vectors, of utterances of so many seconds."""
        sides = {key: self._scorers[key].side(vectors) for key in (self._scorers if keys is None else keys)}
        wanted = {quality for system in self._systems.values() for quality in system.quality}
        raw = next((name for name, space in self._spaces.items() if not space.enhanced), None)
        quality: dict[QualityMeasure, NDArray[np.float64]] = {}
        if "duration" in wanted:
            known = [math.log(each) if each else math.nan for each in seconds]
            quality["duration"] = np.array(known)
        if "norm" in wanted:
            if raw is None:
                raise ConfigError("score.systems: quality norm is of raw embeddings; no --system has them.")
            quality["norm"] = np.linalg.norm(vectors[raw], axis=2).mean(axis=1).astype(np.float64)
        return PreparedSide(sides, quality)

    def scores(
        self,
        name: str,
        enrol: PreparedSide,
        test: PreparedSide,
        trials: Trials,
        learnt: Mapping[str, Calibration | None],
    ) -> NDArray[np.floating]:
        """Return the scores [M] of a system; of a fusion without calibration, the mean of its members'."""
        system, calibration = self._systems[name], learnt[name]
        if calibration:
            return calibration.apply(self._columns(name, enrol, test, trials))
        if system.fuse:
            members = [self.scores(member, enrol, test, trials, learnt) for member in system.fuse]
            return np.asarray(np.mean(members, axis=0))
        return self._columns(name, enrol, test, trials)[:, 0]

    def calibrate(
        self, name: str, lists: Mapping[str, Trials], conditions: Sequence[str], enrolled: PreparedSide
    ) -> Calibration | None:
        """Fit a system's calibration to its list in all conditions, or to the cohort's pairs in all its views.

        Enrolment is clean throughout, as it is in the trials that are measured.

        Raises:
            TrialError: see `calibration.fit`; or what quality is to be known of is not.
        """
        system = self._systems[name]
        if system.calibrate is None:
            return None
        keys, parts, targets = self._keys(name), list[NDArray[np.floating]](), []
        if system.calibrate == COHORT and self._halves:
            held = self._halves[1]
            seconds: Sequence[float | None] = [1.0] * len(held.utterances)  # crops, all of one length
            views = [in_spaces(held.values[:, :, view], self._spaces) for view in range(held.values.shape[2])]
            trials = make_all_pairs(list(map(str, held.speakers)), max(2, self._limit // len(views)), self._seed)
            tests = [self.prepare(view, seconds, keys) for view in views]
            enrolled = tests[CLEAN_VIEW]
        else:
            trials, seconds = lists[system.calibrate], self._utterances.seconds
            tests = [self.prepare(self.vectors(condition), seconds, keys) for condition in conditions]
        for test in tests:
            parts.append(self._columns(name, enrolled, test, trials))
            assert trials.target is not None  # lists and pairs have labels
            targets.append(trials.target)
        return fit(np.concatenate(parts), np.concatenate(targets))

    def _columns(self, name: str, enrol: PreparedSide, test: PreparedSide, trials: Trials) -> NDArray[np.floating]:
        """Return what a system goes by [M, F]: its score or those of its members, and qualities of both sides."""
        keys = self._keys(name)
        parts: list[NDArray[np.floating]] = [
            self._scorers[key].score(enrol.sides[key], test.sides[key], trials)[:, None] for key in keys
        ]
        for quality in self._systems[name].quality:
            pair = qmf(enrol.quality[quality][trials.enrol], test.quality[quality][trials.test])
            if not np.isfinite(pair).all():
                what = {"duration": "the seconds", "norm": "raw embeddings"}[quality]
                raise TrialError(f"score.systems.{name}: quality {quality} needs {what} of all utterances of trials.")
            parts.append(pair)
        return np.concatenate(parts, axis=1)

    def _keys(self, name: str) -> list[Key]:
        """Return the scorers that a system's scores come from."""
        system = self._systems[name]
        half = system.calibrate == COHORT
        return [(each, half and self._systems[each].needs_cohort) for each in system.fuse or [name]]
