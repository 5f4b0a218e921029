"""Train SEED on cached pairs of clean and noisy embeddings."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import compress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.diffusion.inference import infer
from pipeline.diffusion.objective import DISTANCES, LOSSES
from pipeline.diffusion.sampler import Sampling
from pipeline.errors import TrainingError
from pipeline.feed import Feed, open_feed
from pipeline.model import SeedModel, refuse_enhanced
from pipeline.pace import Watch, watched
from pipeline.store import OK, EmbeddingStore
from pipeline.train_settings import Train

REVISION = 2
"""Raise it when the same store and parameters give another model: models are then trained anew."""


@dataclass(frozen=True)
class Epoch:
    """One row of the training curve; epoch 0 is the network before its first step."""

    epoch: int
    train_loss: float
    validation_loss: float
    """Mean L1 to the clean embedding after the one noise-free step that enhancement takes, clean input included."""
    gradient_norm: float = math.nan
    """Mean of the gradient's length over the epoch's steps, before `train.clip`."""
    gradient_peak: float = math.nan
    """The greatest of them."""


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


def train(
    store: EmbeddingStore,
    settings: Train,
    seed: int,
    timestep: int,
    speakers: Mapping[str, str | None] | None = None,
    device: torch.device | None = None,
    progress: Callable[[Epoch], None] | None = None,
    watch: Watch | None = None,
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
        progress: called after every epoch.
        watch: called after every batch, and in the first pass over a streamed store.

    Raises:
        ConfigError: `settings.memory` is too small even to stream the store.
        StoreError: the store is damaged, or holds enhanced embeddings.
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
    del ids  # of millions of utterances, they would be missed elsewhere
    model = SeedModel(store.dim, settings).to(device or torch.device("cpu"))
    feed = open_feed(store, held, model, rng, watch)
    if feed.validated:
        held_out = f"{held_out} ({feed.validated})"
    return optimise(model, feed, settings, timestep, rng, held_out, progress, watch)


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
    loss_of, distance = LOSSES[settings.objective], DISTANCES[settings.loss]
    noise_source = torch.Generator().manual_seed(int(rng.integers(2**62)))  # on the CPU: the same draws on any device
    first = Epoch(0, math.nan, validation_loss(model, ema.module, feed.validation, timestep))
    curve, best, best_state, stopped = [first], first, copy.deepcopy(ema.module.state_dict()), ""
    if progress:
        progress(first)
    for epoch in range(1, settings.max_epochs + 1):
        network.train()
        losses, norms = [], []
        with closing(feed.epoch(rng)) as batches:
            for batch in watched(batches, len, feed.pairs, epoch, watch):
                t = torch.randint(settings.timesteps, (len(batch),), generator=noise_source).to(batch.device)
                noise = torch.randn(len(batch), model.dim, generator=noise_source).to(batch.device)
                loss = loss_of(network, batch[:, 0], batch[:, 1:], t, noise, abar, distance)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                norm = clip_grad_norm_(network.parameters(), settings.clip or math.inf)
                losses.append(loss.detach())
                norms.append(norm)
                if not torch.isfinite(losses[-1] + norm):
                    break
                optimiser.step()
                rate.step()
                ema.update_parameters(network)
        held = validation_loss(model, ema.module, feed.validation, timestep)
        lengths = torch.stack(norms)
        now = Epoch(epoch, float(torch.stack(losses).mean()), held, float(lengths.mean()), float(lengths.max()))
        if not all(map(math.isfinite, (now.train_loss, now.validation_loss, now.gradient_norm))):
            stopped = (
                f"in epoch {epoch} the loss is {now.train_loss:g}, the gradient's norm {now.gradient_norm:g}, and the"
                f" validation loss {held:g}"
            )
            break
        curve.append(now)
        if progress:
            progress(now)
        if now.validation_loss < best.validation_loss:
            best, best_state = now, copy.deepcopy(ema.module.state_dict())
        elif epoch - best.epoch >= settings.patience:
            break
    if stopped and best.epoch == 0:
        raise TrainingError(f"{stopped}, and nothing was learnt before. Lower train.learning_rate, or set train.clip.")
    network.load_state_dict(best_state)
    return Trained(model.eval().requires_grad_(False), curve, best.epoch, held_out, stopped)


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
    """Return the mean L1 between enhanced views [P, views, D] (the clean one included) and the clean embedding."""
    network.eval()
    objective, how = model.settings.objective, Sampling(timestep)
    total, count = 0.0, 0
    for part in held.split(256):  # type: ignore[no-untyped-call]
        enhanced = infer(objective, network, part.flatten(0, 1), how, model.abar)
        total += float(l1_loss(enhanced, part[:, 0].repeat_interleave(part.shape[1], dim=0), reduction="sum"))
        count += part.numel()
    return total / count
