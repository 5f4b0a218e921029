"""The loop of training against one written out here from the papers' formulas."""

import copy
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.train import NetworkSettings, Train
from pipeline.errors import TrainingError
from pipeline.model.diffusion.objectives.seed import seed_loss
from pipeline.model.seed_model import SeedModel
from pipeline.training.loop import Trained, compute_validation_loss, run_training
from tests.training.test_train import use_loss

DIM, PAIRS, BATCH, EPOCHS = 8, 24, 8, 2
PLAIN: dict[str, Any] = {
    "network": {"dropout": 0.0, "precondition": "none"},
    "contrast": 0.0,
    "swap": 0.0,
    "warmup": 0.0,
    "schedule": "constant",
    "batch_size": BATCH,
    "max_epochs": EPOCHS,
    "learning_rate": 3e-3,
}


class Fixed:
    """The same batches in every epoch."""

    def __init__(self) -> None:
        clean = torch.randn(PAIRS, 1, DIM, generator=torch.Generator().manual_seed(1))
        noisy = clean + 1.5 * torch.linspace(-1, 1, DIM)  # the same push, so that it is learnt
        views = torch.cat([clean, noisy, 0.9 * noisy], dim=1)
        self.views = torch.nn.functional.normalize(views, dim=2) * DIM**0.5
        self.pairs, self.validation, self.validated = PAIRS, self.views[:6], ""

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        yield from self.views.split(BATCH)  # type: ignore[no-untyped-call]


def made(settings: Train, seed: int = 0) -> SeedModel:
    torch.manual_seed(seed)
    return SeedModel(DIM, settings)


def trained_by_us(settings: Train) -> Trained:
    return run_training(made(settings), Fixed(), settings, 0, np.random.default_rng(5), "", None, None)


def distance(kind: str, difference: Tensor) -> Tensor:
    size = difference.abs()
    if kind == "huber":  # Huber (1964), delta 1
        return torch.where(size < 1, size**2 / 2, size - 0.5).mean()
    return (size**2 if kind == "l2" else size).mean()


def trained_by_hand(settings: Train) -> dict[str, Tensor]:
    """Return the averaged weights after all epochs: AdamW of Loshchilov & Hutter (2019), algorithm 2."""
    model, lr = made(settings), settings.learning_rate
    network, abar = model.network.train(), model.abar
    names, weights = zip(*network.named_parameters(), strict=True)
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    average: list[Tensor] = []
    source = torch.Generator().manual_seed(int(np.random.default_rng(5).integers(2**62)))
    highest = settings.timesteps if settings.max_timestep is None else settings.max_timestep + 1
    step = 0
    for _ in range(EPOCHS):
        for batch in Fixed().epoch(np.random.default_rng()):
            views = batch.shape[1] if settings.noise_per == "view" else 1
            t = torch.randint(highest, (len(batch), views), generator=source)
            noise = torch.randn(len(batch), views, DIM, generator=source)
            a = abar[t][:, :, None]
            inputs = (a.sqrt() * batch + (1 - a).sqrt() * noise).reshape(-1, DIM)
            clean = batch[:, :1].expand_as(batch).reshape(-1, DIM)
            loss = distance(settings.loss, network(inputs, t.expand(batch.shape[:2]).reshape(-1)) - clean)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            length = torch.sqrt(sum((g**2).sum() for g in gradients if g is not None))  # type: ignore[arg-type]
            share = min(1.0, settings.clip / (float(length) + 1e-6)) if settings.clip else 1.0
            step += 1
            with torch.no_grad():
                for place, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                    if gradient is None:
                        continue
                    weight -= lr * settings.weight_decay * weight
                    first[place] = 0.9 * first[place] + 0.1 * share * gradient
                    second[place] = 0.999 * second[place] + 0.001 * (share * gradient) ** 2
                    m, v = first[place] / (1 - 0.9**step), second[place] / (1 - 0.999**step)
                    weight -= lr * m / (v.sqrt() + 1e-8)
                decay = settings.ema if step > 1 else 0.0
                old = average or [torch.zeros_like(weight) for weight in weights]
                average = [decay * mean + (1 - decay) * w for mean, w in zip(old, weights, strict=True)]
    return dict(zip(names, copy.deepcopy(average), strict=True))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"loss": "l2", "weight_decay": 3.0},
        {"loss": "huber", "ema": 0.0},
        {"clip": 0.05, "max_timestep": None},
        {"ema": 0.6, "clip": 0.02, "max_timestep": 3},
        {"noise_per": "view", "max_timestep": None, "ema": 0.0},
    ],
    ids=str,
)
def test_every_setting_of_the_loop_is_its_formula(changed: dict[str, Any]) -> None:
    settings = Train.model_validate(PLAIN | changed)
    ours = trained_by_us(settings)
    assert ours.best_epoch == EPOCHS
    weights = dict(ours.model.network.named_parameters())
    for name, by_hand in trained_by_hand(settings).items():
        np.testing.assert_allclose(weights[name].numpy(), by_hand.numpy(), rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(("highest", "noise_per"), [(None, "pair"), (7, "pair"), (7, "view")])
def test_timesteps_are_drawn_evenly_up_to_the_highest(
    monkeypatch: pytest.MonkeyPatch, highest: int | None, noise_per: str
) -> None:
    drawn: list[int] = []

    def spy(network: Any, x0: Tensor, views: Tensor, t: Tensor, *rest: Any) -> Tensor:
        drawn.extend(t.flatten().tolist())
        return seed_loss(network, x0, views, t, *rest)

    use_loss(monkeypatch, spy)
    changed = {"timesteps": 12, "max_timestep": highest, "max_epochs": 60, "noise_per": noise_per}
    trained_by_us(Train.model_validate(PLAIN | changed))
    assert len(drawn) == 60 * PAIRS * (3 if noise_per == "view" else 1)
    counts = np.bincount(drawn)
    assert len(counts) == (12 if highest is None else 8)
    expected = len(drawn) / len(counts)
    assert np.square(counts - expected).sum() / expected < 31  # chi squared of 11 degrees of freedom: p = 0.001


def test_a_validation_loss_that_explodes_ends_training() -> None:
    wild = Train.model_validate(PLAIN | {"learning_rate": 1e3, "max_epochs": 40})
    with pytest.raises(TrainingError, match=r"in epoch 1 the validation loss is .*, more than 10 times the .* before"):
        trained_by_us(wild)


def test_weights_learnt_before_a_failure_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 0.9, 0.8, 10.5])
    monkeypatch.setattr("pipeline.training.loop.compute_validation_loss", lambda *_: next(losses))
    ours = trained_by_us(
        Train.model_validate(PLAIN | {"max_epochs": 40, "network": NetworkSettings(dropout=0.0).model_dump()})
    )
    assert (ours.best_epoch, len(ours.curve)) == (2, 3)
    assert "in epoch 3 the validation loss is 10.5" in ours.stopped


@pytest.mark.parametrize(("patience", "epochs"), [(2, 3), (None, 6)])
def test_training_stops_early_only_with_patience(
    monkeypatch: pytest.MonkeyPatch, patience: int | None, epochs: int
) -> None:
    losses = iter([1.0, 0.5, *[0.9] * 5])
    monkeypatch.setattr("pipeline.training.loop.compute_validation_loss", lambda *_: next(losses))
    ours = trained_by_us(Train.model_validate(PLAIN | {"max_epochs": 6, "patience": patience}))
    assert (ours.best_epoch, len(ours.curve) - 1) == (1, epochs)


def test_models_of_epochs_are_kept_and_stay_as_they_were() -> None:
    settings = Train.model_validate(PLAIN | {"max_epochs": 5, "keep_every": 2, "patience": None})
    kept: list[tuple[SeedModel, int]] = []
    model = made(settings)
    rng = np.random.default_rng(5)
    ours = run_training(
        model, Fixed(), settings, 0, rng, "", None, None, keep=lambda each, epoch: kept.append((each, epoch.epoch))
    )
    assert [epoch for _, epoch in kept] == [2, 4]
    for each, epoch in kept:
        alone = trained_by_us(settings.model_copy(update={"max_epochs": epoch}))
        assert alone.best_epoch == epoch  # of a falling loss
        for name, tensor in alone.model.network.state_dict().items():
            assert torch.equal(each.network.state_dict()[name], tensor), name
        assert not each.training
    assert ours.model.network is model.network  # which no copy has changed
    assert ours.best_epoch == 5


def test_an_epoch_without_a_whole_batch_is_refused() -> None:
    class Empty(Fixed):
        def __init__(self) -> None:
            super().__init__()
            self.pairs = 0

    settings = Train.model_validate(PLAIN | {"drop_last": True})
    with pytest.raises(TrainingError, match=r"train.drop_last: an epoch has fewer than the 8 pairs .* nothing is left"):
        run_training(made(settings), Empty(), settings, 0, np.random.default_rng(5), "", None, None)


def test_validation_without_scaling_in_training_compares_directions() -> None:
    """The network predicts the encoder's lengths; clean vectors to compare with have length sqrt(D)."""
    raw = 7 * torch.randn(20, 3, DIM, generator=torch.Generator().manual_seed(2))
    held = torch.nn.functional.normalize(raw, dim=2) * DIM**0.5
    losses = {}
    for scale in ("sampling", "both"):
        model = made(Train.model_validate(PLAIN | {"scale": scale}))  # an untrained correction returns its input
        other = copy.deepcopy(model.network)
        other.forward = lambda x, t: 7 * x  # type: ignore[method-assign]
        losses[scale] = [compute_validation_loss(model, each, held, 0) for each in (model.network, other)]
    expected = float((held - held[:, :1]).abs().mean())
    assert losses["sampling"] == pytest.approx([expected, expected], rel=1e-3)
    assert losses["both"][1] > 3 * losses["both"][0]
