"""How far a trained model goes by default, and how it knows speech that it was not made for.

Both are found on training data alone.
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
from pipeline.model.training_stats import LEVELS, UNUSUAL, TrainingStats, lengths, percentiles
from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.pairs import chosen_views

Crops = NDArray[np.float32]
"""Embeddings [N, draws, views, D], view 0 clean."""

UTTERANCES = 2000
"""What is looked at, at most, of training and of held-out utterances."""
RIDGE = 0.003
"""Share of the mean variance that is added to every direction of the training domain."""
TRIALS = 100_000
"""Of each crop, at most."""
STEPS = 0.1
"""Between the strengths that are tried."""
RESAMPLES = 100
"""Draws of the held-out speakers."""
SURE = 0.9
"""Share of the draws in which clean speech must be recognised worse than raw, for a strength to be out of question."""
NEARLY = 0.02
"""How much higher than the lowest a noisy EER may be, relative to it, for less strength."""
UNTOLD = 0.4
"""The strength where speakers are not known."""


@dataclass(frozen=True)
class FoldModel:
    """A model by which the strength of one like it is found."""

    model: SeedModel
    held: NDArray[np.bool_]
    """Rows [len(store.ok)] that it was not trained on."""


@dataclass(frozen=True)
class HeldOut:
    """What a model was not trained on."""

    model: SeedModel
    crops: Crops
    speakers: Sequence[str | None]
    """Of each of the crops' utterances [N]."""


@dataclass(frozen=True)
class StrengthPoint:
    """How far a model goes, and what that does for speakers that it has not seen."""

    strength: float
    raw: tuple[float, float] | None = None
    """EER in percent on clean crops, and the mean over noisy views; None where the strength is not found by EERs."""
    enhanced: tuple[float, float] | None = None


def calibrate_strength(
    model: SeedModel,
    store: EmbeddingStore,
    held: NDArray[np.bool_],
    speakers: Mapping[str, str | None],
    timestep: int,
    seed: int,
    judges: Sequence[FoldModel],
) -> StrengthPoint:
    """Give a model its domain, the bounds of its training vectors, and its strength; return what that comes to.

    Args:
        model: trained.
        store: that it was trained on.
        held: which of the encoded rows [len(store.ok)] were held out.
        speakers: by utterance, for the strength only.
        timestep: at which the model will enhance.
        seed: of what is looked at, where that is not all.
        judges: models like this one, or itself, and what they have not seen: they find the strength.
    """
    rng = np.random.default_rng(seed)
    seen, _ = _some(store, store.ok[~held], rng, model)
    unseen, _ = _some(store, store.ok[held], rng, model)
    mean, matrix = fit_domain(seen.reshape(-1, store.dim), unseen.reshape(-1, store.dim))
    model.domain_mean.copy_(torch.from_numpy(mean))
    model.domain_matrix.copy_(torch.from_numpy(matrix))
    others = torch.from_numpy(unseen.reshape(-1, store.dim)).to(model.mean.device)
    with torch.no_grad():
        known = percentiles(model.atypicality(others))
        model.training_stats = TrainingStats(
            clean_norm=lengths(seen[:, :, 0]),
            noisy_norm=lengths(seen[:, :, 1:]),
            atypicality=known[LEVELS.index(UNUSUAL)],
            percentiles=known,
        )
    parts = []
    for judge in judges:
        crops, rows = _some(store, store.ok[judge.held], rng, model)
        parts.append(HeldOut(judge.model, crops, [speakers.get(store.utterances[row]) for row in rows]))
    point = find_strength(parts, timestep, model.settings.strength, seed)
    model.strength.fill_(point.strength)
    return point


def fit_domain(
    seen: NDArray[np.float32], unseen: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [D] and matrix [D, D] with |matrix (u - mean)|^2 the distance of a unit vector u from training.

    It is Mahalanobis' under the covariance of what was `seen` [N, D], in medians of what was `unseen` [P, D].
    """
    directions, others = (_directions(vectors) for vectors in (seen, unseen))
    mean = directions.mean(axis=0)
    centred = directions - mean
    covariance = centred.T @ centred / len(centred)
    dim = len(mean)
    covariance += (RIDGE * np.trace(covariance) / dim + 1e-12) * np.eye(dim)
    values, axes = np.linalg.eigh(covariance)
    matrix = np.asarray((axes / np.sqrt(values)) @ axes.T)
    usual = float(np.median(np.square((others - mean) @ matrix.T).sum(axis=1)))
    return mean, matrix / np.sqrt(max(usual, 1e-12))


def find_strength(parts: Sequence[HeldOut], timestep: int, most: float, seed: int) -> StrengthPoint:
    """Return how far to go, by one model and speakers it has not seen, or by several that are alike.

    Of the strengths up to `most` at which clean speech is not surely recognised worse than raw, it is the least whose
    noisy EER is nearly the lowest; EERs are means over the parts. What is sure, a bootstrap over the speakers of each
    part says: where there are few, a difference of two EERs by itself says little, and the lowest EER of several is
    often so by chance. Where speakers are not known, or are too few for trials, nobody can tell, and it is 0.4.
    """
    shares = [float(share) for share in np.linspace(0, most, 1 + max(1, round(most / STEPS)))]
    try:
        found = [_tried(part, shares, timestep, seed + number) for number, part in enumerate(parts)]
    except TrialError:
        return StrengthPoint(min(most, UNTOLD))
    clean, noisy, drawn = (np.mean(values, axis=0) for values in zip(*found, strict=True))
    worse = (drawn > drawn[:, :1]).mean(axis=0) >= SURE
    kept = [place for place in range(len(shares)) if not worse[place]]
    goal = (1 + NEARLY) * min(noisy[place] for place in kept)
    chosen = next(place for place in kept if noisy[place] <= goal)
    return StrengthPoint(
        shares[chosen], *((100 * float(clean[place]), 100 * float(noisy[place])) for place in (0, chosen))
    )


def _tried(
    part: HeldOut, shares: Sequence[float], timestep: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return EERs [strengths] of clean and of noisy crops, and [R, strengths] of clean ones as speakers are redrawn.

    Raises:
        TrialError: speakers are not known, or are too few for trials.
    """
    if None in part.speakers:
        raise TrialError("speakers are not known")
    speakers, crops = list(map(str, part.speakers)), part.crops
    trials = make_all_pairs(speakers, TRIALS, seed)
    raw = torch.from_numpy(crops.reshape(-1, crops.shape[3]))
    whole = torch.from_numpy(enhance_vectors(part.model, raw.numpy(), Sampling(timestep)))
    noisy, clean = list[float](), list[NDArray[np.float32]]()
    for share in shares:
        scores, target = crop_scores(interpolate(raw, whole, share).numpy().reshape(crops.shape), trials)
        noisy.append(float(np.mean([eer(roc_of(view, target)) for view in scores[1:]])))
        clean.append(scores[0])
    eers = np.array([eer(roc_of(scores, target)) for scores in clean])
    return eers, np.array(noisy), _redrawn(clean, target, trials, speakers, seed)


def _redrawn(
    clean: Sequence[NDArray[np.float32]], target: NDArray[np.bool_], trials: Trials, speakers: Sequence[str], seed: int
) -> NDArray[np.float64]:
    """Return the EERs [R, strengths] of scores [strengths][draws * M] as speakers are drawn again."""
    number = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)[1].astype(np.int64)
    draws, rankings = len(target) // len(trials), [Ranking.from_scores(scores, target) for scores in clean]
    enrol, test = (np.tile(number[side], draws) for side in (trials.enrol, trials.test))
    return replicates(rankings, enrol, test, [eer], RESAMPLES, seed)[:, :, 0]


def crop_eers(crops: Crops, speakers: Sequence[str | None], seed: int) -> tuple[float, float] | None:
    """Return EERs in percent on clean crops, and the mean over noisy views, among speakers that were held out.

    Enrolled is the mean of an utterance's clean crops, tested are single crops of other utterances. It is None where
    speakers are not known, or are too few for trials, or a vector is zero.
    """
    if None in speakers:
        return None
    try:
        scores, target = crop_scores(crops, make_all_pairs(list(map(str, speakers)), TRIALS, seed))
        clean, *noisy = (100 * eer(roc_of(view, target)) for view in scores)
    except TrialError:
        return None
    return clean, float(np.mean(noisy))


def crop_scores(crops: Crops, trials: Trials) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
    """Return the scores [views][draws * M] of trials [M] with every crop as test, and which are targets [draws * M]."""
    assert trials.target is not None  # speakers are known
    draws, views = crops.shape[1:3]
    enrolled = mean_units(unit_crops(crops[:, :, 0]))
    scores = []
    for view in range(views):
        tested = unit_crops(crops[:, :, view])
        each = [(enrolled @ tested[:, draw].T)[trials.enrol, trials.test] for draw in range(draws)]
        scores.append(np.concatenate(each))
    return scores, np.tile(trials.target, draws)


def _some(
    store: EmbeddingStore, rows: NDArray[np.int64], rng: np.random.Generator, model: SeedModel
) -> tuple[Crops, list[int]]:
    """Read the views that are used of some rows of a store, by whole shards in a random order, and say which rows."""
    wanted, views = set(rows.tolist()), chosen_views(store, model.settings.noisy_views)
    shards = [part for part in store.shards() if not wanted.isdisjoint(part)]
    parts, names = list[Crops](), list[int]()
    for index in rng.permutation(len(shards)):
        if len(names) >= UTTERANCES:
            break
        chosen = [row for row in shards[index] if row in wanted]
        values = store.read_rows(shards[index])
        parts.append(values[[row - shards[index].start for row in chosen]][:, :, views])
        names += chosen
    order = np.argsort(names)[:UTTERANCES]  # of shards, only in which order they were read is random
    return np.concatenate(parts)[order], [names[place] for place in order]


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = vectors.astype(np.float64)
    return np.asarray(exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12))
