"""The default strength of a trained model, and its statistics to detect out-of-domain speech.

Both come from training data alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.errors import TrialError
from pipeline.metrics import Ranking, eer, replicates, roc_of
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.interpolation import interpolate
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import (
    LEVELS,
    OUTLIER_PERCENTILE,
    TrainingStats,
    atypicality_percentiles,
    measure_spread,
    norm_percentiles,
)
from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.pairs import select_views

Crops = NDArray[np.float32]
"""Embeddings [N, draws, views, D], view 0 clean."""

UTTERANCES = 2000
"""Maximum number of training utterances, and of held-out utterances, to read."""
RIDGE = 0.003
"""Share of the mean variance added to every direction of the training domain."""
TRIALS = 100_000
"""Maximum number of trials per crop."""
STRENGTH_STEP = 0.1
"""Difference between candidate strengths."""
RESAMPLES = 100
"""Number of bootstrap draws of the held-out speakers."""
HARM_CONFIDENCE = 0.9
"""Share of the draws in which the clean EER must exceed the raw one for a strength to be ruled out."""
NOISY_TOLERANCE = 0.02
"""Relative excess over the lowest noisy EER that a lower strength may have."""
NO_HARM, MAX_HARM = (0.0, 0.0), (0.05, 0.15)
"""Largest rises of the clean EER that count as no harm: relative, or in percentage points, whichever is more."""
MIN_GAIN = 0.05
"""Relative gain in noisy EER for which a usual strength is given up."""
FALLBACK_STRENGTH = 0.4
"""The strength if speakers are unknown."""


@dataclass(frozen=True)
class FoldModel:
    """A model that finds the strength of another one with the same settings."""

    model: SeedModel
    held: NDArray[np.bool_]
    """Mask [len(store.ok)] of the rows that it was not trained on."""


@dataclass(frozen=True)
class HeldOut:
    """A model, and crops of utterances that it was not trained on."""

    model: SeedModel
    crops: Crops
    speakers: Sequence[str | None]
    """The speaker of each utterance [N]."""


@dataclass(frozen=True)
class StrengthPoint:
    """The strength of a model, and the EERs of held-out speakers there."""

    strength: float
    raw: tuple[float, float] | None = None
    """EER in percent on clean crops, and the mean over noisy views, at strength 0; None if no EERs were measured."""
    enhanced: tuple[float, float] | None = None
    """The same at the chosen strength."""


def calibrate_strength(
    model: SeedModel,
    store: EmbeddingStore,
    held: NDArray[np.bool_],
    speakers: Mapping[str, str | None],
    timestep: int,
    seed: int,
    fold_models: Sequence[FoldModel],
) -> StrengthPoint:
    """Set a model's domain, statistics of its training vectors, and strength; return the strength with its EERs.

    Args:
        model: trained model.
        store: store that it was trained on.
        held: mask [len(store.ok)] of the encoded rows that were held out.
        speakers: speaker by utterance, for the strength only.
        timestep: timestep at which the model will enhance.
        seed: seed of the choice of utterances, of trials and of the bootstrap.
        fold_models: models that find the strength: others with the same settings, or the model itself.
    """
    rng = np.random.default_rng(seed)
    seen, _ = _sample_rows(store, store.ok[~held], rng, model)
    unseen, _ = _sample_rows(store, store.ok[held], rng, model)
    mean, matrix = fit_domain(seen.reshape(-1, store.dim), unseen.reshape(-1, store.dim))
    model.domain_mean.copy_(torch.from_numpy(mean))
    model.domain_matrix.copy_(torch.from_numpy(matrix))
    held_vectors = torch.from_numpy(unseen.reshape(-1, store.dim)).to(model.mean.device)
    with torch.no_grad():
        known = atypicality_percentiles(model.atypicality(held_vectors))
        model.training_stats = TrainingStats(
            clean_norm=norm_percentiles(seen[:, :, 0]),
            noisy_norm=norm_percentiles(seen[:, :, 1:]),
            atypicality=known[LEVELS.index(OUTLIER_PERCENTILE)],
            percentiles=known,
            spread=measure_spread(seen[:, :, 0]),
        )
    parts = []
    for fold in fold_models:
        crops, rows = _sample_rows(store, store.ok[fold.held], rng, model)
        parts.append(HeldOut(fold.model, crops, [speakers.get(store.utterances[row]) for row in rows]))
    point = find_strength(parts, timestep, model.settings.strength, seed)
    model.strength.fill_(point.strength)
    return point


def fit_domain(
    seen: NDArray[np.float32], unseen: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [D] and matrix [D, D] so that |matrix (u - mean)|^2 is the distance of unit vector u from training.

    It is the squared Mahalanobis distance under the covariance of vectors `seen` in training [N, D], divided by its
    median over `unseen` ones [P, D].
    """
    directions, others = (_directions(vectors) for vectors in (seen, unseen))
    mean = directions.mean(axis=0)
    centred = directions - mean
    covariance = centred.T @ centred / len(centred)
    dim = len(mean)
    covariance += (RIDGE * np.trace(covariance) / dim + 1e-12) * np.eye(dim)
    values, axes = np.linalg.eigh(covariance)
    matrix = np.asarray((axes / np.sqrt(values)) @ axes.T)
    median = float(np.median(np.square((others - mean) @ matrix.T).sum(axis=1)))
    return mean, matrix / np.sqrt(max(median, 1e-12))


def find_strength(
    parts: Sequence[HeldOut],
    timestep: int,
    most: float,
    seed: int,
    tolerance: tuple[float, float] = NO_HARM,
    usual: float | None = None,
) -> StrengthPoint:
    """Return the strength found on held-out speakers, with one model or several with the same settings.

    It is the lowest strength whose noisy EER is nearly the lowest, among those up to `most` that do not clearly harm
    clean speech. EERs are means over the parts. Harm is judged by a bootstrap over the speakers of each part, because
    with few speakers a difference of two EERs says little, and the lowest of several EERs is often lowest by chance. If
    speakers are unknown, or too few for trials, the strength is `FALLBACK_STRENGTH`.

    Args:
        parts: models with crops of speakers that they were not trained on.
        timestep: timestep at which the models enhance.
        most: the highest strength.
        seed: seed of the choice of trials and of the bootstrap.
        tolerance: rise of the clean EER that counts as no harm (relative, in percentage points).
        usual: a strength to keep, unless it does harm or another one lowers the noisy EER by `MIN_GAIN`.
    """
    strengths = [float(each) for each in np.linspace(0, most, 1 + max(1, round(most / STRENGTH_STEP)))]
    try:
        measured = [_measure_strengths(part, strengths, timestep, seed + number) for number, part in enumerate(parts)]
    except TrialError:
        return StrengthPoint(min(most, FALLBACK_STRENGTH))
    clean, noisy, resampled = (np.mean(values, axis=0) for values in zip(*measured, strict=True))
    relative, points = tolerance
    allowed = resampled[:, :1] + np.maximum(relative * resampled[:, :1], points / 100)
    harmful = (resampled > allowed).mean(axis=0) >= HARM_CONFIDENCE
    kept = [index for index in range(len(strengths)) if not harmful[index]]
    limit = (1 + NOISY_TOLERANCE) * min(noisy[index] for index in kept)
    chosen = next(index for index in kept if noisy[index] <= limit)
    if usual is not None:
        near = int(np.abs(np.array(strengths) - usual).argmin())
        if near in kept and noisy[chosen] > (1 - MIN_GAIN) * noisy[near]:
            chosen = near
    raw, enhanced = ((100 * float(clean[index]), 100 * float(noisy[index])) for index in (0, chosen))
    return StrengthPoint(strengths[chosen], raw, enhanced)


def _measure_strengths(
    part: HeldOut, strengths: Sequence[float], timestep: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return EERs [strengths] of clean and of noisy crops, and bootstrap EERs [R, strengths] of clean ones.

    Raise TrialError if speakers are unknown, or too few for trials.
    """
    if None in part.speakers:
        raise TrialError("speakers are unknown")
    speakers, crops = list(map(str, part.speakers)), part.crops
    trials = make_all_pairs(speakers, TRIALS, seed)
    raw = torch.from_numpy(crops.reshape(-1, crops.shape[3]))
    enhanced = torch.from_numpy(enhance_vectors(part.model, raw.numpy(), Sampling(timestep)))
    moved = part.model.move(raw.to(part.model.mean.device)).cpu() if part.model.adaptation else raw
    noisy, clean = list[float](), list[NDArray[np.float32]]()
    for strength in strengths:
        mixed = interpolate(moved if strength else raw, enhanced, strength)
        scores, target = score_crops(mixed.numpy().reshape(crops.shape), trials)
        noisy.append(float(np.mean([eer(roc_of(view, target)) for view in scores[1:]])))
        clean.append(scores[0])
    eers = np.array([eer(roc_of(scores, target)) for scores in clean])
    return eers, np.array(noisy), _resample_speakers(clean, target, trials, speakers, seed)


def _resample_speakers(
    clean: Sequence[NDArray[np.float32]], target: NDArray[np.bool_], trials: Trials, speakers: Sequence[str], seed: int
) -> NDArray[np.float64]:
    """Return bootstrap EERs [R, strengths] of scores [strengths][draws * M], with speakers drawn with replacement."""
    number = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)[1].astype(np.int64)
    draws, rankings = len(target) // len(trials), [Ranking.from_scores(scores, target) for scores in clean]
    enrol, test = (np.tile(number[side], draws) for side in (trials.enrol, trials.test))
    return replicates(rankings, enrol, test, [eer], RESAMPLES, seed)[:, :, 0]


def measure_crop_eers(crops: Crops, speakers: Sequence[str | None], seed: int) -> tuple[float, float] | None:
    """Return the EER in percent on clean crops, and its mean over noisy views, among held-out speakers.

    An utterance is enrolled as the mean of its clean crops and tested against single crops of other utterances. The
    result is None if speakers are unknown or too few for trials, or if a vector is zero.
    """
    if None in speakers:
        return None
    try:
        scores, target = score_crops(crops, make_all_pairs(list(map(str, speakers)), TRIALS, seed))
        clean, *noisy = (100 * eer(roc_of(view, target)) for view in scores)
    except TrialError:
        return None
    return clean, float(np.mean(noisy))


def score_crops(crops: Crops, trials: Trials) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
    """Return the scores [views][draws * M] of trials [M] with every crop as test, and a mask of targets [draws * M]."""
    assert trials.target is not None  # as speakers are known
    draws, views = crops.shape[1:3]
    enrolled = mean_units(unit_crops(crops[:, :, 0]))
    scores = []
    for view in range(views):
        tested = unit_crops(crops[:, :, view])
        by_draw = [(enrolled @ tested[:, draw].T)[trials.enrol, trials.test] for draw in range(draws)]
        scores.append(np.concatenate(by_draw))
    return scores, np.tile(trials.target, draws)


def _sample_rows(
    store: EmbeddingStore, rows: NDArray[np.int64], rng: np.random.Generator, model: SeedModel
) -> tuple[Crops, list[int]]:
    """Read the selected views of random `rows`, by whole shards, and return them with their row numbers."""
    wanted, views = set(rows.tolist()), select_views(store, model.settings.noisy_views)
    shards = [part for part in store.shards() if not wanted.isdisjoint(part)]
    parts, read = list[Crops](), list[int]()
    for index in rng.permutation(len(shards)):
        if len(read) >= UTTERANCES:
            break
        chosen = [row for row in shards[index] if row in wanted]
        values = store.read_rows(shards[index])
        parts.append(values[[row - shards[index].start for row in chosen]][:, :, views])
        read += chosen
    order = np.argsort(read)[:UTTERANCES]  # in the order of the store
    return np.concatenate(parts)[order], [read[index] for index in order]


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = vectors.astype(np.float64)
    return np.asarray(exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12))
