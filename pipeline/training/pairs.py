"""Training pairs as they are made of a store's rows, and as the network is trained on them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.config.train import NoisyViews, Train
from pipeline.errors import TrainingError
from pipeline.model.seed_model import Pairs
from pipeline.store.embedding_store import EmbeddingStore


def chosen_views(store: EmbeddingStore, wanted: NoisyViews) -> list[int] | slice:
    """Return an index of the views of a store: the clean one, then so many of the others, those named, or all.

    Raises:
        TrainingError: it has fewer noisy views, or none of such a name.
    """
    noisy = store.shape[2] - 1
    if wanted is None:
        return slice(None)
    if isinstance(wanted, int):
        if wanted > noisy:
            raise TrainingError(f"{store.path}: has {noisy} noisy views, but train.noisy_views is {wanted}. Lower it.")
        return slice(1 + wanted)
    names = _names(store)
    if not names:
        raise TrainingError(f"{store.path}: does not name its views. Set train.noisy_views to a number, or to null.")
    for name in wanted:
        if name not in names:
            raise TrainingError(
                f"{store.path}: has no noisy view {name!r}, which train.noisy_views names. Take of {', '.join(names)}."
            )
    return [0, *sorted({1 + names.index(name) for name in wanted})]


def noisy_names(store: EmbeddingStore, wanted: NoisyViews) -> list[str]:
    """Return the names of the corrupted views that are used; their numbers, from 1 up, where they have no names."""
    numbers, names = np.arange(store.shape[2])[chosen_views(store, wanted)][1:], _names(store)
    return [names[number - 1] if number <= len(names) else str(number) for number in numbers]


def _names(store: EmbeddingStore) -> list[str]:
    """Return the names of the corrupted views, as far as a store has any."""
    return [str(view["name"]) for view in (store.attributes.get("recipe") or {}).get("views", [])][1:]


def vectors_in(store: EmbeddingStore, settings: Train) -> int:
    """Return how many vectors a pair has: what it should become, and the views that are not that themselves.

    Raises:
        TrainingError: the store does not have the noisy views that are asked for.
    """
    return len(np.arange(store.shape[2])[chosen_views(store, settings.noisy_views)]) + _of_utterance(store, settings)


def pairs_of(values: NDArray[np.float32], store: EmbeddingStore, settings: Train) -> Pairs:
    """Return rows [N, draws, views, D] of a store as pairs [N * draws, V, D], see `vectors_in`.

    With `train.target: utterance` the mean of an utterance's clean crops comes before the views of each crop, the clean
    one among them: what is to be undone is then not only noise, but also which part of a recording was heard. It takes
    two draws or more; a single crop is its own mean.
    """
    used = values[:, :, chosen_views(store, settings.noisy_views)]
    if _of_utterance(store, settings):
        mean = np.broadcast_to(used[:, :, :1].mean(axis=1, keepdims=True), used[:, :, :1].shape)
        used = np.concatenate([mean, used], axis=2)
    return used.reshape(-1, *used.shape[2:])


def swapped(batch: Tensor, share: float, scaled: bool, source: torch.Generator) -> Tensor:
    """Return prepared pairs [B, V, D] some of whose views are moved as another pair's are.

    A view y of x becomes x + (y' - x'), y' the same view of a random pair x' of the batch: noise that moved one
    recording moves others likewise, so that few recordings meet many corruptions.

    Args:
        batch: pairs, what they should become first.
        share: of the views, how many.
        scaled: whether all vectors have length sqrt(D), which they then keep.
        source: of the choice, on the CPU, so that it is the same for any device.
    """
    if not share:
        return batch
    clean, moved = batch[:, :1], batch[:, 1:] - batch[:, :1]
    others = torch.randperm(len(batch), generator=source).to(batch.device)
    chosen = (torch.rand(len(batch), moved.shape[1], 1, generator=source) < share).to(batch.device)
    views = torch.where(chosen, clean + moved[others], batch[:, 1:])
    if scaled:
        views = normalize(views, dim=2) * batch.shape[2] ** 0.5
    return torch.cat([clean, views], dim=1)


def _of_utterance(store: EmbeddingStore, settings: Train) -> bool:
    return settings.target == "utterance" and store.shape[1] > 1
