"""Which corrupted views of a training store are used; the others are as if they were not there."""

import numpy as np

from pipeline.errors import TrainingError
from pipeline.store import EmbeddingStore
from pipeline.train_settings import NoisyViews


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
