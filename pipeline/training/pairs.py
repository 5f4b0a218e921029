"""Training pairs, built from the rows of a store."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.config.train import NoisyViews, Train
from pipeline.errors import TrainingError
from pipeline.model.seed_model import Pairs
from pipeline.store.embedding_store import EmbeddingStore

LARGEST = 1e8
"""The largest size of a number of an embedding. Up to here, a model does not depend on the vectors' common scale."""


def select_views(store: EmbeddingStore, wanted: NoisyViews) -> list[int] | slice:
    """Return the index of the clean view and the wanted noisy views: the first few, the named ones, or all.

    Raise TrainingError if the store has fewer noisy views, or none of a given name.
    """
    noisy = store.shape[2] - 1
    if wanted is None:
        return slice(None)
    if isinstance(wanted, int):
        if wanted > noisy:
            raise TrainingError(f"{store.path}: has {noisy} noisy views, but train.noisy_views is {wanted}. Lower it.")
        return slice(1 + wanted)
    names = _read_view_names(store)
    if not names:
        raise TrainingError(f"{store.path}: does not name its views. Set train.noisy_views to a number, or to null.")
    for name in wanted:
        if name not in names:
            wrong = f"has no noisy view {name!r}, which train.noisy_views names"
            raise TrainingError(f"{store.path}: {wrong}. Choose from {', '.join(names)}.")
    return [0, *sorted({1 + names.index(name) for name in wanted})]


def name_noisy_views(store: EmbeddingStore, wanted: NoisyViews) -> list[str]:
    """Return the names of the selected noisy views; views without a name get their numbers, from 1 up."""
    numbers, names = np.arange(store.shape[2])[select_views(store, wanted)][1:], _read_view_names(store)
    return [names[number - 1] if number <= len(names) else str(number) for number in numbers]


def _read_view_names(store: EmbeddingStore) -> list[str]:
    """Return the names of a store's noisy views; empty if it has none."""
    return [str(view["name"]) for view in (store.attributes.get("recipe") or {}).get("views", [])][1:]


def count_vectors(store: EmbeddingStore, settings: Train) -> int:
    """Return the number of vectors of a pair: the target, and the views other than the target, see `select_views`."""
    views = np.arange(store.shape[2])[select_views(store, settings.noisy_views)]
    return len(views) + _targets_utterance(store, settings)


def build_pairs(values: NDArray[np.float32], store: EmbeddingStore, settings: Train) -> Pairs:
    """Return rows [N, draws, views, D] of a store as pairs [N * draws, V, D], see `count_vectors`.

    With `train.target: utterance` the mean of an utterance's clean crops precedes the views of each crop, the clean one
    included, so the model also learns to remove crop-to-crop variation. This takes two draws or more; a single crop is
    its own mean. Raise TrainingError for numbers beyond `LARGEST`.
    """
    used = values[:, :, select_views(store, settings.noisy_views)]
    if (largest := max(float(used.max(initial=0)), -float(used.min(initial=0)))) > LARGEST:
        raise TrainingError(
            f"{store.path}: holds vectors with numbers up to {largest:.3g}; training takes numbers up to {LARGEST:g},"
            " because squares of larger ones overflow. Check them with `seed store check`, and scale all vectors alike."
        )
    if _targets_utterance(store, settings):
        mean = np.broadcast_to(used[:, :, :1].mean(axis=1, keepdims=True), used[:, :, :1].shape)
        used = np.concatenate([mean, used], axis=2)
    return used.reshape(-1, *used.shape[2:])


def swap_displacements(batch: Tensor, share: float, scaled: bool, generator: torch.Generator) -> Tensor:
    """Return prepared pairs [B, V, D] in which some views have the displacement of another pair.

    A view y of x becomes x + (y' - x'), with y' the same view of a random pair x' of the batch. A few recordings are
    thus seen with many corruptions.

    Args:
        batch: pairs, target first.
        share: fraction of the views to replace.
        scaled: keep all vectors at length sqrt(D).
        generator: random numbers of the choice, on the CPU, so that they are the same for any device.
    """
    if not share:
        return batch
    clean, moved = batch[:, :1], batch[:, 1:] - batch[:, :1]
    others = torch.randperm(len(batch), generator=generator).to(batch.device)
    chosen = (torch.rand(len(batch), moved.shape[1], 1, generator=generator) < share).to(batch.device)
    views = torch.where(chosen, clean + moved[others], batch[:, 1:])
    if scaled:
        views = normalize(views, dim=2) * batch.shape[2] ** 0.5
    return torch.cat([clean, views], dim=1)


def _targets_utterance(store: EmbeddingStore, settings: Train) -> bool:
    return settings.target == "utterance" and store.shape[1] > 1
