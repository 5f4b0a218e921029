"""The loop of training: batches in, the weights of the best epoch out."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.config.train import Train
from pipeline.errors import TrainingError
from pipeline.model.diffusion.contrast import add_contrast
from pipeline.model.diffusion.objective import load_distance
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.training.batches import BatchSource
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.pairs import swapped
from pipeline.training.progress import Epoch, Watch, watched
from pipeline.training.state import State
from pipeline.training.strength import FoldModel

DIVERGED = 10.0
"""Times the validation loss before training, from which on there is nothing to wait for."""


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
    judges: Sequence[FoldModel] = ()
    """By whom its strength was found."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on and what it came to on speakers it has not seen, for its file."""

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


def run_training(
    model: SeedModel,
    feed: BatchSource,
    settings: Train,
    timestep: int,
    rng: np.random.Generator,
    held_out: str,
    progress: Callable[[Epoch], None] | None,
    watch: Watch | None,
    save: Checkpoint | None = None,
) -> Trained:
    """Train a model on a feed until `settings.max_epochs`, or until the validation loss has stopped falling.

    A loss or gradient that is not finite ends training before its step is taken, and so does a validation loss
    `DIVERGED` times as high as before training: the best weights so far are kept.
    """
    network, abar = model.network, model.abar
    ema = copy.deepcopy(network).requires_grad_(False)
    # Listed once: to find them anew at every step would take longer than to average them.
    weights, averages = list(network.parameters()), list(ema.parameters())
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    per_epoch = math.ceil(feed.pairs / settings.batch_size)
    rate = LambdaLR(optimiser, lambda step: rate_factor(step / max(1, per_epoch), settings))
    loss_of, views = model.objective.loss, feed.validation.shape[1]
    distance = add_contrast(load_distance(settings.loss), settings.contrast, views, settings.temperature)
    limited = settings.max_timestep is not None and settings.traits.gaussian_noise
    highest = 1 + settings.max_timestep if limited and settings.max_timestep is not None else settings.timesteps
    noise_source = torch.Generator().manual_seed(int(rng.integers(2**62)))  # on the CPU: the same draws on any device
    first = Epoch(0, math.nan, validation_loss(model, ema, feed.validation, timestep))
    state, stopped = State(network, ema, optimiser, rate, noise_source, rng, [first]), ""
    if save:
        save.restore(state)
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
                norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
                if settings.clip:
                    clip_grads_with_norm_(weights, settings.clip, norm)
                state.losses.append(loss.detach())
                state.norms.append(norm)
                if not torch.isfinite(state.losses[-1] + norm):
                    break
                optimiser.step()
                rate.step()
                decay = settings.ema if rate.last_epoch > 1 else 0.0  # what it starts from is no part of the average
                get_ema_multi_avg_fn(decay)(averages, weights, None)  # type: ignore[no-untyped-call]
                if save:
                    save.step(state)
        held = validation_loss(model, ema, feed.validation, timestep)
        losses, norms = (float(torch.stack(values).mean()) for values in (state.losses, state.norms))
        if not all(map(math.isfinite, (losses, held, norms))):
            stopped = (
                f"in epoch {epoch} the loss is {losses:g}, the gradient's norm {norms:g}, and the validation loss"
                f" {held:g}"
            )
            break
        if held > DIVERGED * state.curve[0].validation_loss > 0:
            stopped = (
                f"in epoch {epoch} the validation loss is {held:.4g}, more than {DIVERGED:g} times the"
                f" {state.curve[0].validation_loss:.4g} before training"
            )
            break
        used = settings.learning_rate * rate_factor((rate.last_epoch - 1) / max(1, per_epoch), settings)
        state.end_epoch(Epoch(epoch, losses, held, norms, used, float(torch.stack(state.norms).max())))
        if progress:
            progress(state.curve[-1])
    if stopped and state.best.epoch == 0:
        if save:
            save.remove()  # it would come to the same again
        raise TrainingError(f"{stopped}, and nothing was learnt before. Lower train.learning_rate, or set train.clip.")
    if save and not stopped:
        save.end(state)
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
    distance = add_contrast(l1_loss, settings.contrast, held.shape[1], settings.temperature)
    total = 0.0
    for part in held.split(256):  # type: ignore[no-untyped-call]
        enhanced = model.objective.infer(network, part.flatten(0, 1), how, model.abar, ())
        total += len(part) * float(distance(enhanced, part[:, 0].repeat_interleave(part.shape[1], dim=0)))
    return total / len(held)
