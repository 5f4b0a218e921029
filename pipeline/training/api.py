"""Training from Python: on arrays or a store, to a model in memory or in a file."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.train import Train
from pipeline.errors import ConfigError, SeedWarning, VectorError
from pipeline.model.card import write_card
from pipeline.model.model_file import save_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.in_memory import array_store
from pipeline.training.loop import Trained
from pipeline.training.progress import Epoch
from pipeline.training.train import train as train_on_store
from pipeline.utils.atomic import check_output
from pipeline.utils.device import choose_device, default_float32_cpu
from pipeline.utils.paths import Place, to_place
from pipeline.utils.validation import validated


@default_float32_cpu()
def train(
    clean: EmbeddingStore | NDArray[np.floating[Any]],
    noisy: NDArray[np.floating[Any]] | None = None,
    *,
    speakers: Sequence[str] | Mapping[str, str | None] | None = None,
    encoder: Mapping[str, Any] | None = None,
    settings: Train | Mapping[str, Any] | None = None,
    seed: int = 0,
    timestep: int = 50,
    out: "str | os.PathLike[str] | Place | None" = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train a model on clean and noisy embeddings of the same crops, see `pipeline.training.train`.

    Use the model as `Enhancer(trained.model)`. The file equals that of `seed train` with the same seed, store and
    settings.

    Args:
        clean: a training store; or [N, D], or [N, draws, D] with several crops per utterance.
        noisy: [N, V, D], or [N, draws, V, D]: each crop with V corruptions. None with a store, which has its own.
        speakers: one per row, or by utterance id; used to hold out whole speakers and to find the strength, never as a
            training signal.
        encoder: encoder of the arrays, as attributes of a store: `encoder`, its name; `family`, `weights_sha256`,
            `front_end`. They are written to the model's file.
        settings: section `train` of the parameter file (docs/training.md); the defaults if not given.
        seed: seed of all random numbers.
        timestep: timestep at which the model will enhance.
        out: model file to write, ….safetensors; its card ….md is written beside it.
        progress: called after every epoch.

    Raises:
        VectorError: the arrays or the speakers do not fit each other, or arrays are not floats or hold NaN.
        ConfigError: a setting is wrong, the seed is negative, or `out` is not named ….safetensors.
        TrainingError: there is nothing to train on, or the loss is not finite from the start.
        StoreError: the store is damaged, or holds enhanced embeddings.
        OutputError: `out` cannot be written.

    Warns:
        SeedWarning: `settings.scale: sampling` does not suit the lengths of the vectors.
    """
    if seed < 0:
        raise ConfigError(f"seed {seed}: must be 0 or more.")
    config = settings if isinstance(settings, Train) else validated(Train, dict(settings or {}), "settings")
    place = None if out is None else to_place(str(out))
    if place is not None:
        if place.suffix != ".safetensors":
            raise ConfigError(f"{place}: must be named ….safetensors.")
        for path in (place, place.with_suffix(".md")):
            check_output(path)
    if isinstance(clean, EmbeddingStore):
        if noisy is not None or encoder is not None:
            raise VectorError(f"{clean.path}: a store has its own noisy views and encoder; give neither.")
        store = clean
    elif noisy is None:
        raise VectorError("noisy vectors [N, V, D] are missing; give them with the clean ones, or a store of both.")
    else:
        store = array_store(clean, noisy, encoder)
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers unchanged
        by_id = _map_speakers(speakers, store)
        device = choose_device(config.device)
        trained = train_on_store(store, config, seed, timestep, by_id, device, progress, warn=_warn)
        if place is not None:
            save_model(place, trained.model, store.encoder(), trained.summary())
            write_card(place, place.with_suffix(".md"))
    return trained


def _warn(line: str) -> None:
    warnings.warn(line, SeedWarning, stacklevel=2)


def _map_speakers(
    speakers: Sequence[str] | Mapping[str, str | None] | None, store: EmbeddingStore
) -> Mapping[str, str | None] | None:
    if speakers is None or isinstance(speakers, Mapping):
        return speakers
    if len(speakers) != len(store.utterances):
        raise VectorError(f"{len(speakers)} speakers for {len(store.utterances)} rows; give one per row.")
    return dict(zip(store.utterances, map(str, speakers), strict=True))
