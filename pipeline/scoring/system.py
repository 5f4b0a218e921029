"""Builder of a system from its entry in `score.systems`: vectors, comparison, normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.score import CohortUse, System
from pipeline.data.trials.table import Trials
from pipeline.errors import ConfigError
from pipeline.scoring.backends import plda
from pipeline.scoring.backends.norm import CohortStatistics, compute_cohort_statistics, normalise_scores
from pipeline.scoring.backends.vectors import average_cohort, centre, ensemble
from pipeline.scoring.cohort import Cohort
from pipeline.scoring.comparison import COMPARISONS, Comparison, mean_units, unit_crops
from pipeline.scoring.condition_stores import ConditionStores
from pipeline.utils.array_types import Float32Array

CLEAN_VIEW = 0


@dataclass(frozen=True)
class SystemSide:
    """One side of trials for one system: representations [N, ...], and the statistics of their cohort scores."""

    representations: Float32Array
    against_cohort: CohortStatistics | None


@dataclass(frozen=True)
class ScoringSystem:
    """A system that scores vectors, with everything that it has learnt from the cohort."""

    system: System
    source: ConditionStores
    original: str | None
    """The name of the raw vectors of an ensemble."""
    mean: Float32Array | None
    """The mean of the cohort's unit vectors [D], which is subtracted."""
    comparison: Comparison
    cohort: Float32Array | None
    """Representations of the cohort [K, ...] for score normalisation."""

    def prepare_side(self, vectors: Mapping[str, Float32Array]) -> SystemSide:
        """Represent utterances, given their vectors [N, crops, D] by source, and score each against the cohort."""
        crops = _make_crops(self.system, self.source, self.original, self.mean, vectors)
        representations = self.comparison.represent(crops)
        if self.cohort is None:
            return SystemSide(representations, None)
        top = self.system.top if self.system.norm == "as" else None
        against_cohort = compute_cohort_statistics(representations, self.cohort, self.comparison.matrix, top)
        return SystemSide(representations, against_cohort)

    def score(self, enrol: SystemSide, test: SystemSide, trials: Trials) -> Float32Array:
        """Return the score [M] of every trial."""
        scores = self.comparison.score(enrol.representations, test.representations, trials)
        if self.system.norm is None or enrol.against_cohort is None or test.against_cohort is None:
            return scores
        sides = enrol.against_cohort, test.against_cohort
        return normalise_scores(self.system.norm, scores, *sides, trials.enrol, trials.test)


def build_system(
    name: str,
    system: System,
    sources: Mapping[str, ConditionStores],
    cohort: Cohort | None,
    use: CohortUse,
    default: str,
    seed: int,
) -> ScoringSystem:
    """Build a system, and train its parts that learn from the cohort.

    The name is for messages. `system` has `of`, and `sources` are all vectors by name. `use` selects the cohort's
    vectors for score normalisation, `default` is `score.comparison`, and `seed` draws the sample of a large cohort.

    Raises:
        ConfigError: the system names unknown vectors, or lacks a cohort or a model.
        StoreError: the cohort is from another encoder.
        TrialError: the cohort is too small, or lacks the speakers that PLDA needs.
    """
    source, original = _find_source(name, system, sources)
    compare = system.compare or default
    if not system.needs_cohort:
        return ScoringSystem(system, source, original, None, COMPARISONS[compare], None)
    if cohort is None:
        raise ConfigError(f"score.systems.{name}: needs a cohort. Give its store with --cohort.")
    source.check_same_encoder(cohort.encoder, cohort.path)
    # Only PLDA uses the noisy views, to learn how noise changes an utterance.
    views = [
        _make_crops(system, source, original, None, convert_to_sources(cohort.values[:, :, view], sources))
        for view in range(cohort.values.shape[2] if compare == "plda" else 1)
    ]
    clean = views[CLEAN_VIEW]
    mean = average_cohort(clean.reshape(-1, clean.shape[2])) if system.center else None
    if mean is not None:
        views = [centre(crops, mean) for crops in views]
        clean = views[CLEAN_VIEW]
    comparison = _train_plda(views, cohort) if compare == "plda" else COMPARISONS[compare]
    normalising = None
    if system.norm:
        normalising = comparison.represent(_sample_cohort(clean, cohort, use, seed))
        if system.norm == "as" and system.top > (count := len(normalising)):
            message = f"top {system.top} of a cohort of {count}. Set it to {count} or less."
            raise ConfigError(f"score.systems.{name}: {message}")
    return ScoringSystem(system, source, original, mean, comparison, normalising)


def convert_to_sources(values: Float32Array, sources: Mapping[str, ConditionStores]) -> dict[str, Float32Array]:
    """Return raw embeddings [N, crops, D] as each source has them, leaving out enhanced ones of unknown models."""
    return {
        name: each.convert_raw(values, adapted=False)
        for name, each in sources.items()
        if each.model or not each.enhanced
    }


def _find_source(
    name: str, system: System, sources: Mapping[str, ConditionStores]
) -> tuple[ConditionStores, str | None]:
    """Return the vectors of a system, and for an ensemble the name of the raw ones."""
    source = sources.get(str(system.of))
    if source is None:
        raise ConfigError(f"score.systems.{name}: of {system.of!r}: there are only {', '.join(sources)}.")
    if source.enhanced and system.needs_models:
        source.require_model()
    if system.ensemble is None:
        return source, None
    raw = [each.name for each in sources.values() if not each.enhanced and each.denoised == source.denoised]
    if not source.enhanced or not raw:
        audio = f" of audio denoised by {source.denoised}" if source.denoised else ""
        raise ConfigError(f"score.systems.{name}: ensemble needs enhanced vectors, and raw ones{audio} with --system.")
    return source, raw[0]


def _make_crops(
    system: System,
    source: ConditionStores,
    original: str | None,
    mean: Float32Array | None,
    vectors: Mapping[str, Float32Array],
) -> Float32Array:
    """Return the unit crops [N, crops, D] that a system compares."""
    crops = vectors[source.name]
    if original is not None and system.ensemble is not None:
        own_lengths = system.lengths == "own"
        raw = source.prepare_originals(vectors[original], own_lengths)
        crops = ensemble(raw, crops, 1 - system.ensemble, own_lengths)
    crops = unit_crops(crops)
    return crops if mean is None else centre(crops, mean)


def _train_plda(views: Sequence[Float32Array], cohort: Cohort) -> Comparison:
    """Train PLDA on single crops, all crops of an utterance in all its views [K, crops, D]."""
    vectors = np.concatenate([crops.reshape(-1, crops.shape[2]) for crops in views])
    speakers = np.repeat(cohort.speaker_numbers(), views[CLEAN_VIEW].shape[1])
    fitted = plda.fit_plda(vectors, np.tile(speakers, len(views)))
    return Comparison(lambda crops: fitted.represent(mean_units(crops)), plda.score_trials, plda.score_matrix)


def _sample_cohort(crops: Float32Array, cohort: Cohort, use: CohortUse, seed: int) -> Float32Array:
    """Return the crops [K, crops, D] for score normalisation: those of utterances, or one mean vector per speaker."""
    if use.of == "speakers":
        numbers = cohort.speaker_numbers()
        means = mean_units(crops)
        sums = np.zeros((numbers.max() + 1, crops.shape[2]), dtype=np.float64)
        np.add.at(sums, numbers, means)
        crops = unit_crops(sums.astype(np.float32)[:, None])
    if len(crops) <= use.size:
        return crops
    rows = np.sort(np.random.default_rng(seed).permutation(len(crops))[: use.size])
    return crops[rows]
