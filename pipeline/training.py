"""Train SEED on cached pairs of clean and noisy embeddings."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.curve import Epoch
from pipeline.diffusion.contrast import with_contrast
from pipeline.diffusion.inference import infer
from pipeline.diffusion.objective import DISTANCES, LOSSES
from pipeline.diffusion.sampler import Sampling
from pipeline.errors import TrainingError
from pipeline.feed import Feed, open_feed
from pipeline.fine_tune import take_over
from pipeline.model import SeedModel, refuse_enhanced
from pipeline.operating import settle
from pipeline.pace import Watch, watched
from pipeline.pairs import swapped
from pipeline.places import Place
from pipeline.saves import Saves, key_of
from pipeline.store import OK, EmbeddingStore
from pipeline.train_settings import DIFFUSED, Train
from pipeline.training_state import State
from pipeline.views import noisy_names

REVISION = 4
"""Raise it when the same store and parameters give another model: models are then trained anew."""


@dataclass(frozen=True)
class Trained:
    """A model at its best epoch, and how it got there."""

    model: SeedModel
    curve: list[Epoch]
    best_epoch: int
    held_out: str
    """What was held out for validation, and how much of it was used if not all."""
    stopped: str = ""
    """Why training ended before its time, the best weights until then being kept; empty if it did not."""
    init_sha256: str = ""
    """Of the model that it began with, if it did with one."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on and what it came to on held-out speakers, for its file."""

    def summary(self) -> dict[str, Any]:
        """Return what the model's file says of its training."""
        best = self.curve[self.best_epoch]
        told: dict[str, Any] = {
            "best_epoch": best.epoch,
            "epochs": len(self.curve) - 1,
            "validation_loss": best.validation_loss,
        }
        told |= {"first_validation_loss": self.curve[0].validation_loss, "held_out": self.held_out, **self.facts}
        told |= {"stopped": self.stopped} if self.stopped else {}
        return told | ({"init_sha256": self.init_sha256} if self.init_sha256 else {})


def train(
    store: EmbeddingStore,
    settings: Train,
    seed: int,
    timestep: int,
    speakers: Mapping[str, str | None] | None = None,
    device: torch.device | None = None,
    progress: Callable[[Epoch], None] | None = None,
    watch: Watch | None = None,
    saves: Saves | None = None,
    init: Place | None = None,
) -> Trained:
    """Fit a model to a training store whose view 0 is clean and whose other views are corrupted.

    A part of the speakers (of the utterances, where speakers are unknown) is held out: the epoch with the lowest
    validation loss on them is kept, and training stops when it has not fallen for `settings.patience` epochs. A store
    that does not fit into `settings.memory` is streamed, see `pipeline.feed`.

    Args:
        store: clean and noisy embeddings [N, draws, views, D].
        settings: network, objective and optimiser.
        seed: of initial weights, held-out choice, order, timesteps and noise.
        timestep: the step at which the model will enhance; validation is done there.
        speakers: speaker by utterance id, used for the hold-out only, never as a training signal.
        device: where to train; the CPU if not given.
        progress: called after every epoch; of a training that goes on, at once with those that it has.
        watch: called after every batch, and in the first pass over a streamed store.
        saves: where the state is saved, and what is gone on from.
        init: file of a model to begin with in place of a network that has learnt nothing; its preconditioner stays.

    Raises:
        ConfigError: `settings.memory` is too small even to stream the store, or `init` is a model of other settings.
        OutputError: there is no space to save the state.
        StoreError: the store is damaged, holds enhanced embeddings, or is not of the encoder of `init`.
        WeightsError: `init` cannot be read.
        TrainingError: fewer than two utterances, not the noisy views that are asked for, noisy views like the clean
            one, or a loss that is not finite before anything was learnt.
    """
    refuse_enhanced(store)
    ids, views = list(compress(store.utterances, store.status == OK)), store.shape[2]
    if len(ids) < 2 or views < 2:
        raise TrainingError(
            f"{store.path}: {len(ids)} encoded utterances of {views} views; training needs two utterances"
            " or more, and a clean and a noisy view of each. Extract with the training recipe."
        )
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    held, held_out = hold_out(ids, speakers or {}, settings.validation, rng)
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
    model = SeedModel(store.dim, settings).to(device or torch.device("cpu"))
    origin = take_over(model, init, store) if init else ""
    feed = open_feed(store, held, model, rng, watch, fit=not init)
    if feed.validated:
        held_out = f"{held_out} ({feed.validated})"
    if saves:
        saves.key = key_of(store, model, feed.validation, revision=REVISION, seed=seed, timestep=timestep)
    trained = optimise(model, feed, settings, timestep, rng, held_out, progress, watch, saves)
    point = settle(trained.model, store, held, speakers or {}, timestep, seed)
    eers = {"raw": point.raw, "enhanced": point.enhanced}
    facts["held_out_eer"] = {name: dict(zip(("clean", "noisy"), eer, strict=True)) for name, eer in eers.items() if eer}
    return replace(trained, init_sha256=origin, facts=facts)


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


def optimise(
    model: SeedModel,
    feed: Feed,
    settings: Train,
    timestep: int,
    rng: np.random.Generator,
    held_out: str,
    progress: Callable[[Epoch], None] | None,
    watch: Watch | None,
    saves: Saves | None = None,
) -> Trained:
    """Train a model on a feed until `settings.max_epochs`, or until the validation loss has stopped falling.

    A loss or gradient that is not finite ends training before its step is taken: the best weights so far are kept.
    """
    network, abar = model.network, model.abar
    average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
    ema = AveragedModel(network, multi_avg_fn=average)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    per_epoch = math.ceil(feed.pairs / settings.batch_size)
    rate = LambdaLR(optimiser, lambda step: rate_factor(step / max(1, per_epoch), settings))
    loss_of, views = LOSSES[settings.objective], feed.validation.shape[1]
    distance = with_contrast(DISTANCES[settings.loss], settings.contrast, views, settings.temperature)
    limited = settings.max_timestep is not None and settings.objective in DIFFUSED
    highest = 1 + settings.max_timestep if limited and settings.max_timestep is not None else settings.timesteps
    noise_source = torch.Generator().manual_seed(int(rng.integers(2**62)))  # on the CPU: the same draws on any device
    first = Epoch(0, math.nan, validation_loss(model, ema.module, feed.validation, timestep))
    state, stopped = State(network, ema, optimiser, rate, noise_source, rng, [first]), ""
    if saves:
        saves.restore(state)
    if progress:
        for known in state.curve:
            progress(known)
    while len(state.curve) <= settings.max_epochs and state.curve[-1].epoch - state.best.epoch < settings.patience:
        epoch, done = len(state.curve), state.begin_epoch()
        network.train()
        with closing(feed.epoch(rng)) as batches:
            for number, batch in enumerate(watched(batches, len, feed.pairs, epoch, watch)):
                if number < done:  # before the run was killed that goes on here
                    continue
                t = torch.randint(highest, (len(batch),), generator=noise_source).to(batch.device)
                noise = torch.randn(len(batch), model.dim, generator=noise_source).to(batch.device)
                moved = swapped(batch, settings.swap, settings.scale == "both", noise_source)
                loss = loss_of(network, moved[:, 0], moved[:, 1:], t, noise, abar, distance)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                norm = clip_grad_norm_(network.parameters(), settings.clip or math.inf)
                state.losses.append(loss.detach())
                state.norms.append(norm)
                if not torch.isfinite(state.losses[-1] + norm):
                    break
                optimiser.step()
                rate.step()
                ema.update_parameters(network)
                if saves:
                    saves.step(state)
        held = validation_loss(model, ema.module, feed.validation, timestep)
        losses, norms = (float(torch.stack(values).mean()) for values in (state.losses, state.norms))
        if not all(map(math.isfinite, (losses, held, norms))):
            stopped = (
                f"in epoch {epoch} the loss is {losses:g}, the gradient's norm {norms:g}, and the validation loss"
                f" {held:g}"
            )
            break
        used = settings.learning_rate * rate_factor((rate.last_epoch - 1) / max(1, per_epoch), settings)
        state.end_epoch(Epoch(epoch, losses, held, norms, used, float(torch.stack(state.norms).max())))
        if progress:
            progress(state.curve[-1])
    if stopped and state.best.epoch == 0:
        if saves:
            saves.remove()  # it would come to the same again
        raise TrainingError(f"{stopped}, and nothing was learnt before. Lower train.learning_rate, or set train.clip.")
    network.load_state_dict(state.best_weights)
    return Trained(model.eval().requires_grad_(False), state.curve, state.best.epoch, held_out, stopped)


def rate_factor(epoch: float, settings: Train) -> float:
    """Return what the learning rate is multiplied by after so many epochs: a linear warm-up, then by the schedule.

    `cosine` falls to 0 by `settings.max_epochs` (Loshchilov & Hutter, 2017), without restarts.
    """
    if epoch < settings.warmup:
        return (epoch + 1e-3) / settings.warmup  # no step is lost
    if settings.schedule == "constant":
        return 1.0
    done = (epoch - settings.warmup) / max(settings.max_epochs - settings.warmup, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@torch.no_grad()
def validation_loss(model: SeedModel, network: nn.Module, held: Tensor, timestep: int) -> float:
    """Return the mean L1 between enhanced views [P, views, D] (the clean one included) and the clean embedding.

    With `train.contrast` that many times the contrast, among 256 pairs at a time, is added.
    """
    network.eval()
    settings, how = model.settings, Sampling(timestep)
    distance = with_contrast(l1_loss, settings.contrast, held.shape[1], settings.temperature)
    total = 0.0
    for part in held.split(256):  # type: ignore[no-untyped-call]
        enhanced = infer(settings.objective, network, part.flatten(0, 1), how, model.abar)
        total += len(part) * float(distance(enhanced, part[:, 0].repeat_interleave(part.shape[1], dim=0)))
    return total / len(held)
