"""Training in somebody else's program: on arrays or a store, to a model in memory or in a file."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.train import Train
from pipeline.errors import ConfigError, VectorError
from pipeline.model.card import write_card
from pipeline.model.model_file import save_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.in_memory import array_store
from pipeline.training.loop import Trained
from pipeline.training.progress import Epoch
from pipeline.training.train import train as run
from pipeline.utils.atomic import check_output
from pipeline.utils.device import choose_device, usual_defaults
from pipeline.utils.paths import Place, to_place
from pipeline.utils.validation import validated


@usual_defaults()
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
    """Train a model on clean and noisy embeddings of the same crops; see `pipeline.training.train`, which does it.

    `Enhancer(trained.model)` enhances with it. With the same seed, store and settings the file is that of `seed train`.

    Args:
        clean: a training store; or [N, D], or [N, draws, D] with several crops of each utterance.
        noisy: [N, V, D], or [N, draws, V, D]: each crop as corrupted in V ways. None with a store, which has them.
        speakers: of each row, or by utterance id: to hold out whole speakers and to find the strength, never as a
            training signal.
        encoder: what made arrays, as attributes of a store: `encoder`, its name; `family`, `weights_sha256`,
            `front_end`. The model's file says so.
        settings: what `train` of the parameter file may hold (docs/training.md); the defaults if not given.
        seed: of all that is random.
        timestep: the step at which the model will enhance.
        out: model file to write, ….safetensors; its card ….md goes beside it.
        progress: called after every epoch.

    Raises:
        VectorError: the arrays do not fit each other, are no floats, or hold NaN; or the speakers do not fit them.
        ConfigError: a setting is wrong, the seed is negative, or `out` is not named ….safetensors.
        TrainingError: there is nothing to train on, or the loss is no number from the start.
        StoreError: the store is damaged, or holds enhanced embeddings.
        OutputError: `out` cannot be written.
    """
    if seed < 0:
        raise ConfigError(f"seed {seed}: is to be 0 or more.")
    how = settings if isinstance(settings, Train) else validated(Train, dict(settings or {}), "settings")
    place = None if out is None else to_place(str(out))
    if place is not None:
        if place.suffix != ".safetensors":
            raise ConfigError(f"{place}: is to be named ….safetensors.")
        for path in (place, place.with_suffix(".md")):
            check_output(path)
    if isinstance(clean, EmbeddingStore):
        if noisy is not None or encoder is not None:
            raise VectorError(f"{clean.path}: a store has noisy views and an encoder of its own; give neither.")
        store = clean
    elif noisy is None:
        raise VectorError("noisy vectors [N, V, D] are missing; give them beside the clean ones, or a store of both.")
    else:
        store = array_store(clean, noisy, encoder)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay what they would have been
        trained = run(store, how, seed, timestep, _by_id(speakers, store), choose_device(how.device), progress)
        if place is not None:
            save_model(place, trained.model, store.encoder(), trained.summary())
            write_card(place, place.with_suffix(".md"))
    return trained


def _by_id(
    speakers: Sequence[str] | Mapping[str, str | None] | None, store: EmbeddingStore
) -> Mapping[str, str | None] | None:
    if speakers is None or isinstance(speakers, Mapping):
        return speakers
    if len(speakers) != len(store.utterances):
        raise VectorError(f"{len(speakers)} speakers of {len(store.utterances)} rows; give one for each.")
    return dict(zip(store.utterances, map(str, speakers), strict=True))
