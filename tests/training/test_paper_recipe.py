"""Training with params/paper.yaml against the recipe of the paper's code, derived again here from its description."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, normalize, silu

from pipeline.config.params import read_params
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.objectives.seed import seed_loss
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.store.in_memory import array_store
from pipeline.training.train import train
from tests.stages.test_cli import PROJECT
from tests.training.test_train import use_loss

DIM, DRAWS, VIEWS, STEPS = 16, 3, 4, 50
TRAINED, HELD = 1_699, 17
"""Numbers of utterances; a batch has 300, so 199 of an epoch are left out."""
PAPER = read_params(PROJECT / "params/paper.yaml")


class Step(NamedTuple):
    """The random numbers of a step of training, and its loss."""

    batch: Tensor
    """Clean and noisy vectors [B, views, D]."""
    t: Tensor
    noise: Tensor
    loss: float


def record(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Return a list to which every step of the training to come is added."""
    steps: list[Step] = []

    def loss(network: Any, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, *rest: Any) -> Tensor:
        value = seed_loss(network, x0, views, t, noise, *rest)
        steps.append(Step(torch.cat([x0[:, None], views], dim=1), t, noise, float(value.detach())))
        return value

    use_loss(monkeypatch, loss)
    return steps


def make_crops() -> np.ndarray:
    """Return crops [N, draws, views, D] of utterances with speaker, crop and noise, at lengths around sqrt(D)."""
    rng = np.random.default_rng(3)
    parts = ((1, 1, 1.0), (DRAWS, 1, 0.3), (DRAWS, VIEWS, 0.5))
    count = TRAINED + HELD
    values = sum(scale * rng.standard_normal((count, draws, views, DIM)) for draws, views, scale in parts)
    return np.asarray(values, dtype=np.float32)


def abar() -> Tensor:
    """The share of signal left at each of 1,000 timesteps; roots of the betas are even from 1e-4 to 0.02."""
    roots = np.linspace(math.sqrt(1e-4), math.sqrt(0.02), 1000)
    return torch.from_numpy(np.cumprod(1 - roots**2))


def predict(weights: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """Three residual blocks of twice the width, conditioned on the timestep: predicted clean vectors [N, D]."""

    def dense(name: str, h: Tensor) -> Tensor:
        return linear(h, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, h: Tensor, eps: float = 1e-5) -> Tensor:
        return layer_norm(h, h.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    half = x.shape[1]  # as many sines as cosines, so together the width
    angles = t[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
    time = dense("time_embed.2", silu(dense("time_embed.0", waves)))
    h = dense("input_proj", x)
    for block in range(3):
        inner = dense(f"res_blocks.{block}.in_layers.2", silu(norm(f"res_blocks.{block}.in_layers.0", h)))
        inner = inner + dense(f"res_blocks.{block}.emb_layers.1", silu(time))
        h = h + dense(f"res_blocks.{block}.out_layers.3", silu(norm(f"res_blocks.{block}.out_layers.0", inner)))
    return dense("out.2", silu(norm("out.0", h, 1e-6)))


def train_by_description(weights: dict[str, Tensor], steps: list[Step]) -> list[float]:
    """Train weights in place in float64, and return the losses.

    Clean, and each corrupted crop: every one is diffused to a timestep of its own, by noise of its own, and the clean
    crop is predicted. Mean absolute error, AdamW, constant rate.
    """
    for tensor in weights.values():
        tensor.requires_grad_()
    optimiser = torch.optim.AdamW(weights.values(), lr=5e-4, weight_decay=5e-5)
    left, losses = abar(), []
    for step in steps:
        inputs, t, noise = (
            torch.cat(list(each.unbind(1))) for each in (step.batch.double(), step.t, step.noise.double())
        )
        target = inputs[: len(step.batch)].repeat(VIEWS, 1)
        diffused = left[t].sqrt()[:, None] * inputs + (1 - left[t]).sqrt()[:, None] * noise
        loss = (predict(weights, diffused, t) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def test_fifty_steps_of_the_preset_have_the_losses_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    crops, epochs = make_crops(), STEPS // (TRAINED // 300)
    settings = PAPER.train.model_copy(update={"max_epochs": epochs, "threads": 1})
    torch.manual_seed(0)
    weights = {name: tensor.double() for name, tensor in SeedModel(DIM, settings).network.state_dict().items()}
    steps = record(monkeypatch)
    trained = train(array_store(crops[:, :, 0], crops[:, :, 1:]), settings, 0, 50)
    assert len(steps) == STEPS
    assert trained.held_out.startswith(f"{HELD} of {TRAINED + HELD} ")

    # Each epoch takes one of the crops of every utterance as the encoder gave it, in whole batches.
    known = {crop.tobytes(): number for number, crop in enumerate(crops[:, :, 0].reshape(-1, DIM))}
    flat = crops.reshape(-1, VIEWS, DIM)
    per_epoch, numbers = STEPS // epochs, []
    for start in range(0, STEPS, per_epoch):
        batches = [step.batch.numpy() for step in steps[start : start + per_epoch]]
        assert {len(batch) for batch in batches} == {300}
        numbers.append([known[clean.tobytes()] for batch in batches for clean in batch[:, 0]])
        assert len({number // DRAWS for number in numbers[-1]}) == len(numbers[-1])
        np.testing.assert_array_equal(np.concatenate(batches), flat[numbers[-1]])
    assert {number % DRAWS for number in numbers[0]} == set(range(DRAWS))
    assert all(one != other for one, other in pairwise(numbers))

    # Every input has a timestep of its own, from all of them, and a noise of its own.
    t, noise = (torch.stack([getattr(step, name) for step in steps]) for name in ("t", "noise"))
    assert t.shape == (STEPS, 300, VIEWS)
    assert noise.shape == (STEPS, 300, VIEWS, DIM)
    assert (t.min(), t.max()) == (0, 999)
    assert len(noise.reshape(-1, DIM)[:, 0].unique()) > 0.99 * t.numel()
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)

    losses = [step.loss for step in steps]
    np.testing.assert_allclose(losses, train_by_description(weights, steps), rtol=1e-6)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_the_model_enhances_as_their_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """At length sqrt(D), diffused once to t = 50 by one draw of noise, and predicted."""
    torch.manual_seed(1)
    model = SeedModel(DIM, PAPER.train).eval()
    for tensor in model.network.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)
    raw = make_crops()[:40, 0, 1]
    enhanced = enhance_vectors(model, raw, Sampling(**PAPER.enhance.sampling()), seed=5)
    noise = torch.from_numpy(np.random.default_rng(5).standard_normal((40, DIM), dtype=np.float32))
    left, x = float(abar()[50]), normalize(torch.from_numpy(raw), dim=1) * DIM**0.5
    with torch.no_grad():
        weights = dict(model.network.state_dict())
        expected = predict(weights, math.sqrt(left) * x + math.sqrt(1 - left) * noise, torch.full((40,), 50))
    np.testing.assert_allclose(enhanced, expected, atol=1e-5)
