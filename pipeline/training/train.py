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
from pipeline.training.batches import fits, open_batches
from pipeline.training.checkpoints import Checkpoints, training_key
from pipeline.training.fine_tune import load_initial_model
from pipeline.training.loop import Trained, run_training
from pipeline.training.pairs import noisy_names
from pipeline.training.progress import Epoch, Watch
from pipeline.training.strength import FoldModel, calibrate_strength
from pipeline.utils.paths import Place

ENOUGH = 100
"""Held-out speakers by whom the strength can be found without folds."""
PER_FOLD = 8
"""Speakers that a fold needs, to say anything."""


def train(
    store: EmbeddingStore,
    settings: Train,
    seed: int,
    timestep: int,
    speakers: Mapping[str, str | None] | None = None,
    device: torch.device | None = None,
    progress: Callable[[Epoch], None] | None = None,
    watch: Watch | None = None,
    saves: Checkpoints | None = None,
    init: Place | None = None,
) -> Trained:
    """Fit a model to a training store whose view 0 is clean and whose other views are corrupted.

    A part of the speakers (of the utterances, where speakers are unknown) is held out: the epoch with the lowest
    validation loss on them is kept, and training stops when it has not fallen for `settings.patience` epochs. A store
    that does not fit into `settings.memory` is streamed, see `pipeline.training.batches`. How far the model goes by
    itself is found on speakers that it was not trained on; where few are held out, by `settings.folds` more models that
    are trained without a part of the speakers each, see `pipeline.training.strength`.

    Args:
        store: clean and noisy embeddings [N, draws, views, D].
        settings: network, objective and optimiser.
        seed: of initial weights, held-out choice, order, timesteps and noise.
        timestep: the step at which the model will enhance; validation is done there.
        speakers: speaker by utterance id, for the hold-out and the strength only, never as a training signal.
        device: where to train; the CPU if not given.
        progress: called after every epoch; of a training that goes on, at once with those that it has.
        watch: called after every batch, and in the first pass over a streamed store.
        saves: where the state is saved, and what is gone on from.
        init: file of a model to begin with in place of a network that has learnt nothing; its preconditioner stays.

    Raises:
        ConfigError: nothing is learnt at `timestep`, `settings.memory` is too small even to stream the store, or `init`
            is a model of other settings.
        OutputError: there is no space to save the state.
        StoreError: the store is damaged, holds enhanced embeddings, or is not of the encoder of `init`.
        WeightsError: `init` cannot be read.
        TrainingError: fewer than two utterances, not the noisy views that are asked for, noisy views like the clean
            one, or a loss that is not finite before anything was learnt.
    """
    store.check_raw()
    if wrong := settings.find_timestep_conflict(timestep):
        raise ConfigError(f"timestep {timestep}: {wrong}.")
    ids, views = list(compress(store.utterances, store.status == OK)), store.shape[2]
    if len(ids) < 2 or views < 2:
        raise TrainingError(
            f"{store.path}: {len(ids)} encoded utterances of {views} views; training needs two utterances"
            " or more, and a clean and a noisy view of each. Extract with the training recipe."
        )
    _check_moved(store)
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
        "draws": store.shape[1],
        "noisy_views": noisy_names(store, settings.noisy_views),
    }
    del ids, known  # of millions of utterances, they would be missed elsewhere
    where = device or torch.device("cpu")
    model = SeedModel(store.dim, settings).to(where)
    origin = load_initial_model(model, init, store) if init else ""
    feed = open_batches(store, held, model, rng, watch, fit=not init)
    if feed.validated:
        held_out = f"{held_out} ({feed.validated})"
    keyed = {"revision": revisions.TRAIN, "seed": seed, "timestep": timestep}
    save = saves.checkpoint(training_key(store, model, feed.validation, **keyed)) if saves else None
    trained = run_training(model, feed, settings, timestep, rng, held_out, progress, watch, save)
    if trained.stopped or not fits(store, settings) or settings.strength == 0:
        parts = []
    try:
        judges = _judges(store, parts, settings, seed, timestep, where, watch, saves) or [
            FoldModel(trained.model, held)
        ]
    except TrainingError as error:  # the model itself is sound: it is kept, and asked in their place
        facts["folds_failed"], judges = str(error), [FoldModel(trained.model, held)]
    point = calibrate_strength(trained.model, store, held, speakers or {}, timestep, seed, judges)
    eers = {"raw": point.raw, "enhanced": point.enhanced}
    facts["held_out_eer"] = {name: dict(zip(("clean", "noisy"), eer, strict=True)) for name, eer in eers.items() if eer}
    return replace(trained, init_sha256=origin, facts=facts, judges=judges)


def _check_moved(store: EmbeddingStore) -> None:
    """Raise TrainingError if no noisy embedding of a store's first utterances differs from the clean one."""
    first = set(store.ok.tolist())
    shard = next(part for part in store.shards() if not first.isdisjoint(part))
    crops = store.read_rows(shard)[[row - shard.start for row in shard if row in first]]
    if (crops[:, :, 1:] == crops[:, :, :1]).all():
        raise TrainingError(
            f"{store.path}: all noisy embeddings of its first {len(crops)} utterances are equal to the clean ones. Look"
            " at the store with `seed store check`, and extract it anew."
        )


def hold_out(
    ids: Sequence[str], speakers: Mapping[str, str | None], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], str]:
    """Choose the rows [N] to validate on: whole speakers where all are known and two or more, else utterances."""
    known = [speakers.get(name) for name in ids]
    by_speaker = None not in known and len(set(known)) > 1
    groups = known if by_speaker else list(ids)
    names = sorted(set(map(str, groups)) if by_speaker else ids)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = {names[index] for index in rng.permutation(len(names))[:count]}
    held = np.fromiter((str(group) in chosen for group in groups), dtype=bool, count=len(ids))
    return held, f"{count} of {len(names)} {'speakers' if by_speaker else 'utterances'}"


def split_folds(
    ids: Sequence[str],
    speakers: Mapping[str, str | None],
    held: NDArray[np.bool_],
    count: int,
    seed: int,
) -> list[NDArray[np.bool_]]:
    """Cut the speakers of rows [N] into `count` parts, and return which rows [N] are of each.

    There are none where speakers are not known, where so many are held out that nothing is gained, or where parts would
    be too small.
    """
    known = [speakers.get(name) for name in ids]
    if None in known or len({known[row] for row in np.flatnonzero(held)}) >= ENOUGH:
        return []
    names = sorted(set(map(str, known)))
    if count < 2 or len(names) < count * PER_FOLD:
        return []
    order = np.random.default_rng([seed, count]).permutation(len(names))
    part = {names[index]: place % count for place, index in enumerate(order)}
    parts = np.fromiter((part[str(name)] for name in known), dtype=np.int64, count=len(known))
    return [parts == number for number in range(count)]


def _judges(
    store: EmbeddingStore,
    parts: Sequence[NDArray[np.bool_]],
    settings: Train,
    seed: int,
    timestep: int,
    device: torch.device,
    watch: Watch | None,
    saves: Checkpoints | None,
) -> list[FoldModel]:
    """Train a model without each of the parts [rows], which it is validated on.

    Raises:
        TrainingError: one of them did not come to its end; models of other quality say nothing of the strength.
    """
    judges = []
    for number, held in enumerate(parts, 1):
        told = _told_of(watch, f"strength, part {number} of {len(parts)}, ")
        torch.manual_seed(seed + number)
        rng = np.random.default_rng([seed, number])
        model = SeedModel(store.dim, settings).to(device)
        feed = open_batches(store, held, model, rng, told)
        keyed = {"revision": revisions.TRAIN, "seed": seed, "timestep": timestep, "part": number}
        save = saves.checkpoint(training_key(store, model, feed.validation, **keyed), number) if saves else None
        try:
            trained = run_training(model, feed, settings, timestep, rng, "", None, told, save)
        except TrainingError as error:
            raise TrainingError(f"part {number} of {len(parts)}: {error}") from error
        if trained.stopped:
            raise TrainingError(f"part {number} of {len(parts)}: {trained.stopped}.")
        judges.append(FoldModel(trained.model, held))
    return judges


def _told_of(watch: Watch | None, what: str) -> Watch | None:
    return watch and (lambda pace: watch(replace(pace, what=what)))
