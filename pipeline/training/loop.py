"""The training loop."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, normalize
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
from pipeline.training.pairs import swap_displacements
from pipeline.training.progress import Epoch, OnBatch, report_progress
from pipeline.training.state import TrainingState
from pipeline.training.strength import FoldModel

DIVERGED = 10.0
"""The ratio to the initial validation loss above which training has diverged."""

KeepEpoch = Callable[[SeedModel, Epoch], None]
"""A function that is called with the model of an epoch; training goes on with other tensors."""


@dataclass(frozen=True)
class Trained:
    """A model at its best epoch, and how it was trained."""

    model: SeedModel
    curve: list[Epoch]
    best_epoch: int
    held_out: str
    """A description of the held-out rows, and of the part of them that was used if not all."""
    stopped: str = ""
    """The reason why training stopped early, with the best weights so far; empty if it did not."""
    init_sha256: str = ""
    """SHA-256 of the model that training started from; empty if it started from scratch."""
    fold_models: Sequence[FoldModel] = ()
    """The models that found its strength."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the model's file: the training data, and EERs of held-out speakers."""

    def summary(self) -> dict[str, Any]:
        """Return what the model's file says about its training."""
        best = self.curve[self.best_epoch]
        content: dict[str, Any] = {"best_epoch": best.epoch, "epochs": len(self.curve) - 1}
        content |= {"validation_loss": best.validation_loss, "first_validation_loss": self.curve[0].validation_loss}
        content |= {"held_out": self.held_out, **self.facts}
        content |= {"stopped": self.stopped} if self.stopped else {}
        return content | ({"init_sha256": self.init_sha256} if self.init_sha256 else {})


def run_training(
    model: SeedModel,
    batches: BatchSource,
    settings: Train,
    timestep: int,
    rng: np.random.Generator,
    held_out: str,
    progress: Callable[[Epoch], None] | None,
    on_batch: OnBatch | None,
    checkpoint: Checkpoint | None = None,
    keep: KeepEpoch | None = None,
) -> Trained:
    """Train a model until `settings.max_epochs`, or until the validation loss stops falling.

    `keep` is called after every `settings.keep_every` epochs.

    Training stops early, with the best weights so far, before a step whose loss or gradient is not finite, or when the
    validation loss exceeds `DIVERGED` times its initial value.
    """
    network, abar = model.network, model.abar
    ema = copy.deepcopy(network).requires_grad_(False)
    # Listed once, because collecting them at every step would take longer than averaging them.
    weights, averages = list(network.parameters()), list(ema.parameters())
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if not batches.pairs and settings.max_epochs:
        raise TrainingError(
            f"train.drop_last: an epoch has fewer than the {settings.batch_size} pairs of a batch, so nothing is left."
            " Lower train.batch_size, or set train.drop_last to false."
        )
    per_epoch = math.ceil(batches.pairs / settings.batch_size)
    rate = LambdaLR(optimiser, lambda step: rate_factor(step / max(1, per_epoch), settings))
    loss_of, views = model.objective.loss, batches.validation.shape[1]
    distance = add_contrast(load_distance(settings.loss), settings.contrast, views, settings.temperature)
    limited = settings.max_timestep is not None and settings.traits.gaussian_noise
    highest = 1 + settings.max_timestep if limited and settings.max_timestep is not None else settings.timesteps
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))  # on the CPU, for the same draws on any device
    first = Epoch(0, math.nan, compute_validation_loss(model, ema, batches.validation, timestep))
    state, stopped = TrainingState(network, ema, optimiser, rate, generator, rng, [first]), ""
    if checkpoint:
        checkpoint.restore(state)
    if progress:
        for past in state.curve:
            progress(past)
    patience = math.inf if settings.patience is None else settings.patience
    while len(state.curve) <= settings.max_epochs and state.curve[-1].epoch - state.best.epoch < patience:
        epoch, done = len(state.curve), state.begin_epoch()
        network.train()
        with closing(batches.epoch(rng)) as in_order:
            for number, batch in enumerate(report_progress(in_order, len, batches.pairs, epoch, on_batch)):
                if number < done:  # by the run that is resumed
                    continue
                drawn = batch.shape[: 1 if settings.noise_per == "pair" else 2]
                t = torch.randint(highest, drawn, generator=generator).to(batch.device)
                noise = torch.randn(*drawn, model.dim, generator=generator).to(batch.device)
                pairs = swap_displacements(batch, settings.swap, settings.scale == "both", generator)
                loss = loss_of(network, pairs[:, 0], pairs[:, 1:], t, noise, abar, distance)
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
                decay = settings.ema if rate.last_epoch > 1 else 0.0  # the initial weights are not part of the average
                get_ema_multi_avg_fn(decay)(averages, weights, None)  # type: ignore[no-untyped-call]
                if checkpoint:
                    checkpoint.step(state)
        held = compute_validation_loss(model, ema, batches.validation, timestep)
        losses, norms = (float(torch.stack(values).mean()) for values in (state.losses, state.norms))
        if not all(map(math.isfinite, (losses, held, norms))):
            measured = f"the loss is {losses:g}, the gradient's norm {norms:g}, and the validation loss {held:g}"
            stopped = f"in epoch {epoch} {measured}"
            break
        if held > DIVERGED * (untrained := state.curve[0].validation_loss) > 0:
            excess = f"more than {DIVERGED:g} times the {untrained:.4g} before training"
            stopped = f"in epoch {epoch} the validation loss is {held:.4g}, {excess}"
            break
        learning_rate = settings.learning_rate * rate_factor((rate.last_epoch - 1) / max(1, per_epoch), settings)
        state.end_epoch(Epoch(epoch, losses, held, norms, learning_rate, float(torch.stack(state.norms).max())))
        if keep and settings.keep_every and epoch % settings.keep_every == 0:
            keep(_copy_with_network(model, ema), state.curve[-1])
        if progress:
            progress(state.curve[-1])
    if stopped and state.best.epoch == 0:
        if checkpoint:
            checkpoint.remove()  # a resumed run would fail in the same way
        raise TrainingError(f"{stopped}, and nothing was learnt before. Lower train.learning_rate, or set train.clip.")
    if checkpoint and not stopped:
        checkpoint.end(state)
    network.load_state_dict(state.best_weights)
    return Trained(model.eval().requires_grad_(False), state.curve, state.best.epoch, held_out, stopped)


def _copy_with_network(model: SeedModel, network: nn.Module) -> SeedModel:
    """Return a copy of a model for inference with a copy of another network; all other tensors are shared."""
    other = copy.copy(model)
    other._modules = dict(model._modules)  # a shallow copy shares the dictionary itself
    other.network = copy.deepcopy(network).requires_grad_(False)  # type: ignore[assignment]
    return other.eval()


def rate_factor(epoch: float, settings: Train) -> float:
    """Return the factor of the learning rate at a (fractional) epoch: a linear warm-up, then the schedule.

    `cosine` falls to 0 by `settings.max_epochs` (Loshchilov & Hutter, 2017), without restarts.
    """
    if epoch < settings.warmup:
        return (epoch + 1e-3) / settings.warmup  # so that the first step is not zero
    if settings.schedule == "constant":
        return 1.0
    done = (epoch - settings.warmup) / max(settings.max_epochs - settings.warmup, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@torch.no_grad()
def compute_validation_loss(model: SeedModel, network: nn.Module, held: Tensor, timestep: int) -> float:
    """Return the mean L1 between enhanced views [P, views, D] (the clean one included) and the clean embedding.

    The contrast among 256 pairs at a time is added, with the weight `train.contrast`. With `train.scale: sampling` the
    network predicts vectors of the encoder's length, so they are first scaled to sqrt(D), as the clean ones are.
    """
    network.eval()
    settings, sampling = model.settings, Sampling(timestep)
    distance = add_contrast(l1_loss, settings.contrast, held.shape[1], settings.temperature)
    total = 0.0
    for part in held.split(256):  # type: ignore[no-untyped-call]
        enhanced = model.objective.infer(network, part.flatten(0, 1), sampling, model.abar, ())
        if settings.scale == "sampling":
            enhanced = normalize(enhanced, dim=1) * held.shape[2] ** 0.5
        total += len(part) * float(distance(enhanced, part[:, 0].repeat_interleave(part.shape[1], dim=0)))
    return total / len(held)
