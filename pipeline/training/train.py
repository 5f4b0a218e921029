"""Train SEED on cached pairs of clean and noisy embeddings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import revisions
from pipeline.config.train import Train
from pipeline.errors import ConfigError, TrainingError
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.training.batches import open_batches
from pipeline.training.checkpoints import Checkpoints, compute_training_key
from pipeline.training.fine_tune import load_initial_model
from pipeline.training.loop import KeepEpoch, Trained, run_training
from pipeline.training.memory import fits_in_memory
from pipeline.training.pairs import name_noisy_views
from pipeline.training.progress import Epoch, OnBatch
from pipeline.training.strength import FoldModel, calibrate_strength
from pipeline.utils.paths import Place

ENOUGH_SPEAKERS = 100
"""Number of held-out speakers that find the strength without folds."""
FOLD_SPEAKERS = 8
"""Minimum number of speakers in a fold."""
MAX_LENGTH_RATIO = 2.0
"""Largest ratio between the length of training vectors and sqrt(D), either way, without a warning."""


def train(
    store: EmbeddingStore,
    settings: Train,
    seed: int,
    timestep: int,
    speakers: Mapping[str, str | None] | None = None,
    device: torch.device | None = None,
    progress: Callable[[Epoch], None] | None = None,
    on_batch: OnBatch | None = None,
    checkpoints: Checkpoints | None = None,
    init: Place | None = None,
    keep: KeepEpoch | None = None,
    warn: Callable[[str], None] | None = None,
) -> Trained:
    """Fit a model to a training store whose view 0 is clean and whose other views are corrupted.

    Some of the speakers (of the utterances, if speakers are unknown) are held out: the epoch with the lowest validation
    loss on them is kept, and training stops when that has not fallen for `settings.patience` epochs. A store that does
    not fit into `settings.memory` is streamed, see `pipeline.training.batches`. The strength is found on held-out
    speakers; if these are few, with `settings.folds` more models that are each trained without a part of the speakers,
    see `pipeline.training.strength`.

    Args:
        store: clean and noisy embeddings [N, draws, views, D].
        settings: network, objective and optimiser.
        seed: seed of initial weights, held-out choice, order, timesteps and noise.
        timestep: timestep at which the model will enhance, and is validated.
        speakers: speaker by utterance id, for the hold-out and the strength only, never as a training signal.
        device: device to train on; the CPU if not given.
        progress: called after every epoch; a resumed training first calls it with past epochs.
        on_batch: called after every batch, and in the first pass over a streamed store.
        checkpoints: checkpoints to save, and to resume from.
        init: model file to start from instead of random weights; its preconditioner is kept.
        keep: called with the model of every epoch that `settings.keep_every` keeps.
        warn: called with a line about lengths that `settings.scale: sampling` does not suit.

    Raises:
        ConfigError: nothing is learnt at `timestep`, `settings.memory` is too small to stream the store, or `init` has
            other settings.
        OutputError: there is no space for a checkpoint.
        StoreError: the store is damaged, holds enhanced embeddings, or has another encoder than `init`.
        WeightsError: `init` cannot be read.
        TrainingError: there are fewer than two utterances, noisy views are missing or equal to the clean one, or the
            loss is not finite before anything is learnt.
    """
    store.check_raw()
    if wrong := settings.find_timestep_conflict(timestep):
        raise ConfigError(f"timestep {timestep}: {wrong}.")
    ids, views = list(compress(store.utterances, store.status == OK)), store.shape[2]
    if len(ids) < 2 or views < 2:
        raise TrainingError(
            f"{store.path}: {len(ids)} encoded utterances with {views} views; training needs two or more"
            " utterances, each with a clean and a noisy view. Extract with the training recipe."
        )
    _check_displacement(store)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    held, held_out = hold_out(ids, speakers or {}, settings.validation, rng)
    parts = [] if init else split_folds(ids, speakers or {}, held, settings.folds, seed)
    known = {speakers.get(name) for name in ids} if speakers else {None}
    facts: dict[str, Any] = {
        "seed": seed,
        "timestep": timestep,
        "utterances": len(ids),
        "speakers": None if None in known else len(known),
        "domains": len(store.attributes.get("domains", [1])),
        "draws": store.shape[1],
        "noisy_views": name_noisy_views(store, settings.noisy_views),
    }
    del ids, known  # large, with millions of utterances
    device = device or torch.device("cpu")
    model = SeedModel(store.dim, settings).to(device)
    origin = load_initial_model(model, init, store) if init else ""
    batches = open_batches(store, held, model, rng, on_batch, fit=not init)
    if warn and settings.scale == "sampling" and (reason := _describe_lengths(store, model)):
        warn(reason)
    if batches.validated:
        held_out = f"{held_out} ({batches.validated})"
    keyed = {"revision": revisions.TRAIN, "seed": seed, "timestep": timestep}
    checkpoint = None
    if checkpoints:
        checkpoint = checkpoints.checkpoint(compute_training_key(store, model, batches.validation, **keyed))
    trained = run_training(model, batches, settings, timestep, rng, held_out, progress, on_batch, checkpoint, keep)
    if trained.stopped or not fits_in_memory(store, settings) or settings.strength == 0:
        parts = []
    try:
        folds = _train_fold_models(store, parts, settings, seed, timestep, device, on_batch, checkpoints)
    except TrainingError as error:  # the model itself is sound: it is kept, and finds its own strength
        facts["folds_failed"], folds = str(error), []
    folds = folds or [FoldModel(trained.model, held)]
    point = calibrate_strength(trained.model, store, held, speakers or {}, timestep, seed, folds)
    eers = {"raw": point.raw, "enhanced": point.enhanced}
    facts["held_out_eer"] = {name: dict(zip(("clean", "noisy"), eer, strict=True)) for name, eer in eers.items() if eer}
    return replace(trained, init_sha256=origin, facts=facts, fold_models=folds)


def _read_first_shard(store: EmbeddingStore) -> NDArray[np.float32]:
    """Return the encoded rows [N, draws, views, D] of the first shard that has any."""
    first = set(store.ok.tolist())
    shard = next(part for part in store.shards() if not first.isdisjoint(part))
    return store.read_rows(shard)[[row - shard.start for row in shard if row in first]]


def _describe_lengths(store: EmbeddingStore, model: SeedModel) -> str | None:
    """Return a warning if the network is trained on lengths far from those that it enhances; None if not."""
    clean = torch.from_numpy(_read_first_shard(store)[:, :, 0].reshape(-1, store.dim)).to(model.mean.device)
    with torch.no_grad():
        length = float(model.prepare(clean, scale=False).norm(dim=1).median())
    target = store.dim**0.5
    if target / MAX_LENGTH_RATIO <= length <= target * MAX_LENGTH_RATIO:
        return None
    return (
        f"train.scale: sampling trains on vectors of length {length:.3g} (the median), but enhancement scales them to"
        f" {target:.3g}, the root of the dimension. Set train.scale to both, unless this encoder's model is meant to."
    )


def _check_displacement(store: EmbeddingStore) -> None:
    """Raise TrainingError if all noisy embeddings of a store's first shard equal the clean ones."""
    crops = _read_first_shard(store)
    if (crops[:, :, 1:] == crops[:, :, :1]).all():
        raise TrainingError(
            f"{store.path}: all noisy embeddings of its first {len(crops)} utterances are equal to the clean ones."
            " Check the store with `seed store check`, and extract it again."
        )


def hold_out(
    ids: Sequence[str], speakers: Mapping[str, str | None], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], str]:
    """Return a mask [N] of random rows to validate on, and a description of them.

    Whole speakers are held out if all are known and there are two or more, otherwise utterances.
    """
    known = [speakers.get(name) for name in ids]
    by_speaker = None not in known and len(set(known)) > 1
    groups = known if by_speaker else list(ids)
    names = sorted(set(map(str, groups)) if by_speaker else ids)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = {names[index] for index in rng.permutation(len(names))[:count]}
    held = np.fromiter((str(group) in chosen for group in groups), dtype=bool, count=len(ids))
    return held, f"{count} of {len(names)} {'speakers' if by_speaker else 'utterances'}"


def split_folds(
    ids: Sequence[str], speakers: Mapping[str, str | None], held: NDArray[np.bool_], count: int, seed: int
) -> list[NDArray[np.bool_]]:
    """Divide the speakers of rows [N] into `count` parts, and return a mask [N] of the rows of each.

    The list is empty if speakers are unknown, if enough are held out already, or if parts would be too small.
    """
    known = [speakers.get(name) for name in ids]
    if None in known or len({known[row] for row in np.flatnonzero(held)}) >= ENOUGH_SPEAKERS:
        return []
    names = sorted(set(map(str, known)))
    if count < 2 or len(names) < count * FOLD_SPEAKERS:
        return []
    order = np.random.default_rng([seed, count]).permutation(len(names))
    part = {names[index]: rank % count for rank, index in enumerate(order)}
    parts = np.fromiter((part[str(name)] for name in known), dtype=np.int64, count=len(known))
    return [parts == number for number in range(count)]


def _train_fold_models(
    store: EmbeddingStore,
    parts: Sequence[NDArray[np.bool_]],
    settings: Train,
    seed: int,
    timestep: int,
    device: torch.device,
    on_batch: OnBatch | None,
    checkpoints: Checkpoints | None,
) -> list[FoldModel]:
    """Train a model without each of the parts, and validate it on that part; raise TrainingError if any fails."""
    folds = []
    for number, held in enumerate(parts, 1):
        labelled = _add_label(on_batch, f"strength, part {number} of {len(parts)}, ")
        torch.manual_seed(seed + number)
        rng = np.random.default_rng([seed, number])
        model = SeedModel(store.dim, settings).to(device)
        batches = open_batches(store, held, model, rng, labelled)
        keyed = {"revision": revisions.TRAIN, "seed": seed, "timestep": timestep, "part": number}
        checkpoint = None
        if checkpoints:
            checkpoint = checkpoints.checkpoint(compute_training_key(store, model, batches.validation, **keyed), number)
        try:
            trained = run_training(model, batches, settings, timestep, rng, "", None, labelled, checkpoint)
        except TrainingError as error:
            raise TrainingError(f"part {number} of {len(parts)}: {error}") from error
        if trained.stopped:
            raise TrainingError(f"part {number} of {len(parts)}: {trained.stopped}.")
        folds.append(FoldModel(trained.model, held))
    return folds


def _add_label(on_batch: OnBatch | None, label: str) -> OnBatch | None:
    return on_batch and (lambda progress: on_batch(replace(progress, label=label)))
