"""How far a trained model goes by default, and how it knows speech that it was not made for.

Both are found on training data alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.comparison import mean_units, unit_crops
from pipeline.diffusion.inference import between
from pipeline.diffusion.sampler import Sampling
from pipeline.enhance import enhanced
from pipeline.errors import TrialError
from pipeline.metrics import eer, roc_of
from pipeline.model import SeedModel
from pipeline.store import EmbeddingStore
from pipeline.trials import Trials, all_pairs
from pipeline.views import chosen_views

Crops = NDArray[np.float32]
"""Embeddings [N, draws, views, D], view 0 clean."""

UTTERANCES = 2000
"""What is looked at, at most, of training and of held-out utterances."""
RIDGE = 0.003
"""Share of the mean variance that is added to every direction of the training domain."""
TRIALS = 200_000
"""Of each crop, at most."""
STEPS = 0.05
"""Between the strengths that are tried."""
UNTOLD = 0.4
"""The strength where speakers are not known."""


def settle(
    model: SeedModel,
    store: EmbeddingStore,
    held: NDArray[np.bool_],
    speakers: Mapping[str, str | None],
    timestep: int,
    seed: int,
) -> None:
    """Give a model its domain and its strength.

    Args:
        model: trained.
        store: that it was trained on.
        held: which of the encoded rows [len(store.ok)] were held out.
        speakers: by utterance, for the strength only.
        timestep: at which the model will enhance.
        seed: of what is looked at, where that is not all.
    """
    rng = np.random.default_rng(seed)
    seen, _ = _some(store, store.ok[~held], rng, model)
    unseen, rows = _some(store, store.ok[held], rng, model)
    mean, matrix = domain(seen.reshape(-1, store.dim), unseen.reshape(-1, store.dim))
    model.domain_mean.copy_(torch.from_numpy(mean))
    model.domain_matrix.copy_(torch.from_numpy(matrix))
    labels = [speakers.get(store.utterances[row]) for row in rows]
    model.strength.fill_(strength(model, unseen, labels, timestep, model.settings.strength, seed))


def domain(seen: NDArray[np.float32], unseen: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def strength(
    model: SeedModel, crops: Crops, speakers: Sequence[str | None], timestep: int, most: float, seed: int
) -> float:
    """Return how far to go, by crops [N, draws, views, D] of held-out speakers.

    That is where their noisy EER is lowest, among the strengths up to `most` that do not raise their clean EER. Where
    speakers are not known, or are too few for trials, nobody can tell, and it is 0.4.
    """
    raw = torch.from_numpy(crops.reshape(-1, crops.shape[3]))
    whole = torch.from_numpy(enhanced(model, raw.numpy(), Sampling(timestep)))
    found = []
    for share in np.linspace(0, most, 1 + max(1, round(most / STEPS))):
        eers = crop_eers(between(raw, whole, float(share)).numpy().reshape(crops.shape), speakers, seed)
        if eers is None:
            return min(most, UNTOLD)
        found.append((eers[1], float(share), eers[0]))
    return min(each for each in found if each[2] <= found[0][2])[1]


def crop_eers(crops: Crops, speakers: Sequence[str | None], seed: int) -> tuple[float, float] | None:
    """Return EERs in percent on clean crops, and the mean over noisy views, among speakers that were held out.

    Enrolled is the mean of an utterance's clean crops, tested are single crops of other utterances. It is None where
    speakers are not known, or are too few for trials, or a vector is zero.
    """
    if None in speakers:
        return None
    try:
        trials = all_pairs(list(map(str, speakers)), TRIALS, seed)
        return _crop_eers(crops, trials)
    except TrialError:
        return None


def _crop_eers(crops: Crops, trials: Trials) -> tuple[float, float]:
    assert trials.target is not None  # speakers are known
    count, views = crops.shape[1:3]
    enrolled, targets = mean_units(unit_crops(crops[:, :, 0])), np.tile(trials.target, count)
    eers = []
    for view in range(views):
        tested = unit_crops(crops[:, :, view])
        scores = [(enrolled @ tested[:, draw].T)[trials.enrol, trials.test] for draw in range(count)]
        eers.append(100 * eer(roc_of(np.concatenate(scores), targets)))
    return eers[0], float(np.mean(eers[1:]))


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
