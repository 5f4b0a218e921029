"""A system put together from its line in `score.systems`: vectors, comparison, normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.score import CohortUse, System
from pipeline.data.trials.table import Trials
from pipeline.errors import ConfigError
from pipeline.scoring.backends import plda
from pipeline.scoring.backends.norm import Statistics, normalise, statistics
from pipeline.scoring.backends.vectors import centred, ensembled, mean_of_cohort
from pipeline.scoring.cohort import Cohort
from pipeline.scoring.comparison import COMPARISONS, Comparison, mean_units, unit_crops
from pipeline.scoring.condition_stores import ConditionStores, Values, Vectors

CLEAN_VIEW = 0


@dataclass(frozen=True)
class Side:
    """One side of trials: what stands for its utterances [N, ...], and their scores against the cohort."""

    representations: NDArray[np.float32]
    against_cohort: Statistics | None


@dataclass(frozen=True)
class ScoringSystem:
    """A system that makes scores of vectors, with what it has learnt from the cohort."""

    system: System
    space: ConditionStores
    original: str | None
    """Name of the raw vectors, of an ensemble."""
    mean: NDArray[np.float32] | None
    """Of the cohort's unit vectors [D], to be subtracted."""
    comparison: Comparison
    cohort: NDArray[np.float32] | None
    """What stands for the cohort [K, ...], to normalise by."""

    def crops(self, vectors: Vectors) -> Values:
        """Return the unit crops [N, crops, D] that are compared."""
        return _crops(self.system, self.space, self.original, self.mean, vectors)

    def side(self, vectors: Vectors) -> Side:
        """Return what stands for utterances; with norms, this is where each meets the cohort, once."""
        stand_ins = self.comparison.represent(self.crops(vectors))
        if self.cohort is None:
            return Side(stand_ins, None)
        top = self.system.top if self.system.norm == "as" else None
        return Side(stand_ins, statistics(stand_ins, self.cohort, self.comparison.matrix, top))

    def score(self, enrol: Side, test: Side, trials: Trials) -> NDArray[np.float32]:
        """Return the score [M] of every trial."""
        scores = self.comparison.score(enrol.representations, test.representations, trials)
        if self.system.norm is None or enrol.against_cohort is None or test.against_cohort is None:
            return scores
        sides = enrol.against_cohort, test.against_cohort
        return normalise(self.system.norm, scores, *sides, trials.enrol, trials.test)


def build_system(
    name: str,
    system: System,
    spaces: Mapping[str, ConditionStores],
    cohort: Cohort | None,
    use: CohortUse,
    default: str,
    seed: int,
) -> ScoringSystem:
    """Put a system together, and train what it learns from the cohort.

    Args:
        name: of the system, for messages.
        system: its line; it is `of` vectors.
        spaces: all vectors there are.
        cohort: needed by systems that say so.
        use: which part of it normalises scores.
        default: `score.comparison`.
        seed: of the sample of a large cohort, and of PLDA.

    Raises:
        ConfigError: it names vectors that there are not, or lacks a cohort or a model.
        StoreError: the cohort is of another encoder.
        TrialError: the cohort is too small, or lacks the speakers that PLDA needs.
    """
    space, original = _space(name, system, spaces)
    if not system.needs_cohort:
        return ScoringSystem(system, space, original, None, COMPARISONS[system.compare or default], None)
    if cohort is None:
        raise ConfigError(f"score.systems.{name}: needs a cohort. Give its store with --cohort.")
    space.check_encoder_of(cohort.encoder, cohort.path)
    # Of the noisy views only PLDA makes use, which is to learn what noise does to an utterance.
    views = range(cohort.values.shape[2] if (system.compare or default) == "plda" else 1)
    heard = [_crops(system, space, original, None, in_spaces(cohort.values[:, :, view], spaces)) for view in views]
    crops = heard[CLEAN_VIEW]
    mean = mean_of_cohort(crops.reshape(-1, crops.shape[2])) if system.center else None
    if mean is not None:
        heard = [centred(each, mean) for each in heard]
        crops = heard[CLEAN_VIEW]
    comparison = _comparison(system, default, heard, cohort)
    normed = None
    if system.norm:
        normed = comparison.represent(_sampled(crops, cohort, use, seed))
        if system.norm == "as" and system.top > len(normed):
            raise ConfigError(
                f"score.systems.{name}: top {system.top} of a cohort of {len(normed)}. Set it to {len(normed)} or less."
            )
    return ScoringSystem(system, space, original, mean, comparison, normed)


def in_spaces(values: Values, spaces: Mapping[str, ConditionStores]) -> dict[str, Values]:
    """Return what raw embeddings [N, crops, D] are in every space, as far as its model is known."""
    return {name: space.of_raw(values) for name, space in spaces.items() if space.model or not space.enhanced}


def _space(name: str, system: System, spaces: Mapping[str, ConditionStores]) -> tuple[ConditionStores, str | None]:
    space = spaces.get(str(system.of))
    if space is None:
        raise ConfigError(f"score.systems.{name}: of {system.of!r}: there are only {', '.join(spaces)}.")
    if space.enhanced and system.needs_models:
        space.made_by()
    if system.ensemble is None:
        return space, None
    raw = [each.name for each in spaces.values() if not each.enhanced and each.denoised == space.denoised]
    if not space.enhanced or not raw:
        alike = f" of audio denoised by {space.denoised}" if space.denoised else ""
        raise ConfigError(f"score.systems.{name}: ensemble takes enhanced vectors, and raw ones{alike} beside them.")
    return space, raw[0]


def _crops(
    system: System, space: ConditionStores, original: str | None, mean: NDArray[np.float32] | None, vectors: Vectors
) -> Values:
    crops = vectors[space.name]
    if original is not None and system.ensemble is not None:
        crops = ensembled(space.originals(vectors[original]), crops, 1 - system.ensemble)
    crops = unit_crops(crops)
    return crops if mean is None else centred(crops, mean)


def _comparison(system: System, default: str, heard: Sequence[Values], cohort: Cohort) -> Comparison:
    """Return how sides are compared; PLDA takes every crop of an utterance in every view [K, crops, D] for itself."""
    if (system.compare or default) != "plda":
        return COMPARISONS[system.compare or default]
    vectors = np.concatenate([crops.reshape(-1, crops.shape[2]) for crops in heard])
    speakers = np.repeat(cohort.numbers(), heard[CLEAN_VIEW].shape[1])
    fitted = plda.fit(vectors, np.tile(speakers, len(heard)))
    return Comparison(lambda crops: fitted.represent(mean_units(crops)), plda.dot_plus, plda.matrix)


def _sampled(crops: Values, cohort: Cohort, use: CohortUse, seed: int) -> Values:
    """Return the crops [K, crops, D] that normalise scores, of utterances, or one mean vector a speaker."""
    if use.of == "speakers":
        numbers = cohort.numbers()
        means = mean_units(crops)
        sums = np.zeros((numbers.max() + 1, crops.shape[2]), dtype=np.float64)
        np.add.at(sums, numbers, means)
        crops = unit_crops(sums.astype(np.float32)[:, None])
    if len(crops) <= use.size:
        return crops
    rows = np.sort(np.random.default_rng(seed).permutation(len(crops))[: use.size])
    return crops[rows]
