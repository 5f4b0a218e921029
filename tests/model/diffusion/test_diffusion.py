from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.objectives import OBJECTIVES
from pipeline.model.diffusion.network import DiffusionNetwork, timestep_embedding
from pipeline.model.diffusion.objective import load_distance, load_objective
from pipeline.model.diffusion.objectives.bridge import BridgeNetwork, infer_by_euler
from pipeline.model.diffusion.objectives.gap import GapNetwork, infer_with_gap
from pipeline.model.diffusion.objectives.seed import infer_by_ddim, seed_loss
from pipeline.model.diffusion.sampler import Sampling, ddim, ddim_step, step_times
from pipeline.model.diffusion.schedule import cumulative_alphas, forward_diffuse, scaled_linear_betas


@pytest.fixture(scope="module")
def scheduler() -> Any:
    from diffusers import DDIMScheduler  # takes seconds to import

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
    )


ABAR = cumulative_alphas(scaled_linear_betas(1000))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_schedule_is_diffusers_scaled_linear(scheduler: Any) -> None:
    torch.testing.assert_close(ABAR, scheduler.alphas_cumprod, rtol=1e-5, atol=1e-7)
    assert ABAR[50].sqrt() == pytest.approx(0.9954, abs=5e-5)
    assert (1 - ABAR[50]).sqrt() == pytest.approx(0.096, abs=5e-4)


def test_forward_diffusion_is_diffusers(scheduler: Any) -> None:
    x0, noise, t = randn(6, 16), randn(6, 16, seed=1), torch.tensor([0, 1, 50, 500, 998, 999])
    torch.testing.assert_close(
        forward_diffuse(x0, t, noise, ABAR), scheduler.add_noise(x0, noise, t), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("t", [980, 500, 20])
def test_a_ddim_step_is_diffusers(scheduler: Any, t: int, eta: float) -> None:
    scheduler.set_timesteps(50)
    x_t, x0, noise = randn(4, 16), randn(4, 16, seed=1), randn(4, 16, seed=2)
    theirs = scheduler.step(x0, t, x_t, eta=eta, variance_noise=noise if eta else None).prev_sample
    before = ABAR[t - 20] if t >= 20 else torch.tensor(1.0)
    torch.testing.assert_close(ddim_step(x_t, x0, ABAR[t], before, eta, noise), theirs, rtol=1e-4, atol=1e-5)


def test_a_noisy_step_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="needs noise"):
        ddim_step(randn(1, 4), randn(1, 4), ABAR[9], ABAR[5], eta=1.0)


def test_one_step_returns_the_predicted_sample(scheduler: Any) -> None:
    x, network = randn(5, 16), DiffusionNetwork(16).eval()
    torch.nn.init.normal_(network.out[2].weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(ABAR[50].sqrt() * x, torch.full((5,), 50))
        torch.testing.assert_close(ddim(network, x, Sampling(50), ABAR), expected)
        noise = randn(5, 16, seed=3)
        noisy = network(scheduler.add_noise(x, noise, torch.full((5,), 50)), torch.full((5,), 50))
        torch.testing.assert_close(ddim(network, x, Sampling(50), ABAR, [noise]), noisy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dim", "parameters"), [(192, 1_373_760), (256, 2_437_888), (512, 9_725_440)])
def test_the_network_has_as_many_parameters_as_published(dim: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in DiffusionNetwork(dim).parameters()) == parameters


def test_an_untrained_correction_leaves_vectors_alone_and_an_untrained_sample_is_zero() -> None:
    x, t = randn(3, 8), torch.tensor([0, 5, 900])
    torch.testing.assert_close(DiffusionNetwork(8, predict="correction").eval()(x, t), x)
    torch.testing.assert_close(DiffusionNetwork(8, predict="sample").eval()(x, t), torch.zeros(3, 8))


def test_time_is_cosines_then_sines() -> None:
    t = torch.tensor([0, 7])
    embedding = timestep_embedding(t, 8).numpy()
    periods = 10_000 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(embedding[1], np.concatenate([np.cos(7 * periods), np.sin(7 * periods)]), rtol=1e-5)
    np.testing.assert_array_equal(embedding[0], [1] * 4 + [0] * 4)
    odd = timestep_embedding(t, 9).numpy()
    np.testing.assert_array_equal(odd, np.pad(embedding, ((0, 0), (0, 1))))
    assert DiffusionNetwork(9, predict="sample")(torch.ones(2, 9), t).shape == (2, 9)


@pytest.mark.parametrize(("dtype", "least", "most"), [(torch.float64, 0, 1e-7), (torch.float32, 1e-6, 1e-4)])
def test_sinusoids_are_as_exact_as_their_angles(dtype: torch.dtype, least: float, most: float) -> None:
    found = timestep_embedding(torch.tensor([999]), 256, dtype)
    assert found.dtype == torch.float32
    angles = 999 * 10_000 ** (-np.arange(128) / 128)
    assert least <= np.abs(found.numpy()[0] - np.concatenate([np.cos(angles), np.sin(angles)])).max() <= most


def test_the_loss_is_the_mean_l1_over_clean_and_noisy_inputs() -> None:
    x0, views, noise, t = randn(4, 8), randn(4, 3, 8, seed=1), randn(4, 8, seed=2), torch.tensor([0, 10, 500, 999])

    def network(x: Tensor, t: Tensor) -> Tensor:
        return 2 * x + t[:, None]

    terms = []
    for k in range(4):
        inputs = x0 if k == 0 else views[:, k - 1]
        terms.append((network(forward_diffuse(inputs, t, noise, ABAR), t) - x0).abs().mean())
    torch.testing.assert_close(seed_loss(network, x0, views, t, noise, ABAR), torch.stack(terms).mean())


def test_every_input_can_have_its_own_timestep_and_noise() -> None:
    x0, views, noise, t = randn(4, 8), randn(4, 3, 8, seed=1), randn(4, 4, 8, seed=2), torch.arange(0, 960, 60)
    t = t.reshape(4, 4)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return 2 * x + t[:, None]

    terms = []
    for k in range(4):
        inputs = x0 if k == 0 else views[:, k - 1]
        terms.append((network(forward_diffuse(inputs, t[:, k], noise[:, k], ABAR), t[:, k]) - x0).abs().mean())
    torch.testing.assert_close(seed_loss(network, x0, views, t, noise, ABAR), torch.stack(terms).mean())


@pytest.mark.parametrize("objective", ["seed", "gap", "bridge", "dae", "vmf-pl"])
def test_equal_draws_for_each_input_are_those_of_the_pair(objective: str) -> None:
    torch.manual_seed(0)
    chosen = load_objective(objective)
    network = chosen.network(8, predict="correction", abar=ABAR).eval()
    for tensor in network.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)
    x0, views, noise, t = randn(4, 8), randn(4, 3, 8, seed=1), randn(4, 8, seed=2), torch.tensor([0, 10, 500, 999])
    each = t[:, None].expand(4, 4), noise[:, None].expand(4, 4, 8)
    losses = [chosen.loss(network, x0, views, *drawn, ABAR, load_distance("l1")) for drawn in ((t, noise), each)]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 3, 10, 50])
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("timestep", [50, 999])
def test_a_ddim_trajectory_is_diffusers(steps: int, spacing: str, eta: float, timestep: int) -> None:
    from diffusers import DDIMScheduler  # takes seconds to import

    scheduler = DDIMScheduler(
        num_train_timesteps=timestep + 1,
        trained_betas=scaled_linear_betas(1000)[: timestep + 1].float().numpy(),
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing=spacing,
        steps_offset=0,
    )
    scheduler.set_timesteps(steps)
    times = step_times(timestep, steps, spacing)
    if steps > 1:
        assert times == scheduler.timesteps.tolist()
    else:
        assert times == [timestep]
    network = DiffusionNetwork(16).eval()
    torch.nn.init.normal_(network.out[2].weight, std=0.1, generator=torch.Generator().manual_seed(0))
    x, noises = randn(5, 16), [randn(5, 16, seed=2 + number) for number in range(steps + 1)]
    with torch.no_grad():
        x_t = scheduler.add_noise(x, noises[0], torch.full((5,), times[0]))
        for number, time in enumerate(times):
            predicted = network(x_t, torch.full((5,), time))
            if steps == 1:
                x_t = predicted
            else:
                noise = noises[1 + number] if eta else None
                x_t = scheduler.step(predicted, time, x_t, eta=eta, variance_noise=noise).prev_sample
        # On their float32 products: near t = 0, the last bit of abar is divided by sqrt(1 - abar), a hundredth.
        ours = ddim(network, x, Sampling(timestep, steps, eta, spacing, 1), scheduler.alphas_cumprod, noises)
    torch.testing.assert_close(ours, x_t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_there_are_as_many_steps_as_asked_for_and_all_lead_down(spacing: str) -> None:
    for timestep in (*range(60), 99, 999):
        for steps in range(1, timestep + 2):
            times = step_times(timestep, steps, spacing)
            assert len(times) == steps, (timestep, steps)
            assert timestep >= times[0], (timestep, steps)
            assert times[-1] >= 0, (timestep, steps)
            assert times == sorted(set(times), reverse=True), (timestep, steps)


@pytest.mark.parametrize("predict", ["epsilon", "v"])
def test_a_network_that_predicts_noise_or_velocity_says_what_is_clean(predict: str) -> None:
    x0, noise, t = randn(6, 16), randn(6, 16, seed=1), torch.tensor([0, 1, 50, 500, 900, 999])
    x_t = forward_diffuse(x0, t, noise, ABAR)
    network = DiffusionNetwork(16, predict=predict, abar=ABAR).eval()
    velocity = ABAR[t].sqrt()[:, None] * noise - (1 - ABAR[t]).sqrt()[:, None] * x0
    network.out = torch.nn.Identity()
    network.input_proj = torch.nn.Identity()
    network.res_blocks = torch.nn.ModuleList()
    true = noise if predict == "epsilon" else velocity
    network.out.forward = lambda h: true  # a perfect network
    torch.testing.assert_close(network(x_t, t), x0, rtol=1e-3, atol=1e-3)


def ideal(x0: Tensor) -> "torch.nn.Module":
    """A network that always knows the answer for inputs in groups of four."""

    class Ideal(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x0.repeat_interleave(len(x) // len(x0), dim=0)

    return Ideal()


@pytest.mark.parametrize("objective", ["seed", "dae", "bridge"])
@pytest.mark.parametrize("name", ["l1", "l2", "huber"])
def test_losses_are_the_distance_to_the_clean_embedding(objective: str, name: str) -> None:
    x0, views, noise, t = randn(4, 8), randn(4, 3, 8, seed=1), randn(4, 8, seed=2), torch.tensor([0, 10, 500, 999])
    assert load_objective(objective).loss(ideal(x0), x0, views, t, noise, ABAR, load_distance(name)) == 0

    def identity(x: Tensor, t: Tensor) -> Tensor:
        return x

    inputs = torch.cat([x0[:, None], views], dim=1)
    share = (t / 1000)[:, None, None]
    moved = {
        "seed": ABAR[t].sqrt()[:, None, None] * inputs + (1 - ABAR[t]).sqrt()[:, None, None] * noise[:, None],
        "dae": inputs,
        "bridge": (1 - share) * inputs + share * x0[:, None],
    }[objective]
    off = (moved - x0[:, None]).numpy().astype(np.float64)
    expected = {
        "l1": np.abs(off),
        "l2": off**2,
        "huber": np.where(np.abs(off) < 1, off**2 / 2, np.abs(off) - 0.5),
    }[name].mean()
    assert float(
        load_objective(objective).loss(identity, x0, views, t, noise, ABAR, load_distance(name))
    ) == pytest.approx(expected, 1e-5)


def test_vmf_pl_is_its_formula() -> None:
    x0, views, t = randn(4, 8), randn(4, 3, 8, seed=1), torch.zeros(4, dtype=torch.long)
    inputs = torch.cat([x0[:, None], views], dim=1)
    units = torch.nn.functional.normalize(inputs, dim=2), torch.nn.functional.normalize(x0, dim=1)[:, None]
    expected = ((units[0] - units[1]).square().sum(dim=2) + 1e-6).log().mean()
    found = load_objective("vmf-pl").loss(lambda x, t: 3 * x, x0, views, t, x0, ABAR, load_distance("l1"))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("predict", ["sample", "correction"])
def test_the_first_gradient_is_of_an_ordinary_size(objective: str, predict: str) -> None:
    torch.manual_seed(0)
    network = load_objective(objective).network(32, predict=predict, abar=ABAR)
    x0, views, t = randn(64, 32), randn(64, 3, 32, seed=1), torch.arange(0, 960, 15)
    load_objective(objective).loss(network, x0, views, t, randn(64, 32, seed=2), ABAR, load_distance("l1")).backward()
    gradients = [parameter.grad.norm() for parameter in network.parameters() if parameter.grad is not None]
    assert 1e-3 < torch.stack(gradients).norm() < 100


def test_a_bridge_of_a_perfect_network_ends_where_it_says_however_many_steps() -> None:
    x0, x = randn(4, 8), randn(4, 8, seed=1)
    for steps in (1, 3, 10):
        torch.testing.assert_close(infer_by_euler(ideal(x0), x, Sampling(steps=steps), ABAR), x0)
    seen: list[int] = []

    def half(z: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return torch.zeros_like(z)

    torch.testing.assert_close(infer_by_euler(half, x, Sampling(steps=4), ABAR), torch.zeros_like(x))
    assert seen == [0, 250, 500, 750]


def test_a_bridge_by_its_velocity_takes_eulers_steps() -> None:
    x, steps = randn(4, 8), 5
    network = BridgeNetwork(8, predict="v", abar=ABAR).eval()
    torch.nn.init.normal_(network.out[2].weight, std=0.1, generator=torch.Generator().manual_seed(0))
    raw = BridgeNetwork(8, predict="sample", abar=ABAR).eval()  # the same weights' output as it is
    raw.load_state_dict(network.state_dict())
    z = x.double().numpy()
    with torch.no_grad():
        for number in range(steps):
            u = raw(torch.from_numpy(z).float(), torch.full((4,), number * 1000 // steps))
            z = z + u.double().numpy() / steps
        ours = infer_by_euler(network, x, Sampling(steps=steps), ABAR)
    np.testing.assert_allclose(ours.numpy(), z, rtol=1e-5, atol=1e-5)
    assert np.abs(z - x.numpy()).max() > 0.1


def test_the_loss_of_a_velocity_is_the_distance_to_the_true_one_weighted() -> None:
    x0, views, t = randn(4, 8), randn(4, 3, 8, seed=1), torch.tensor([0, 10, 500, 999])
    network = BridgeNetwork(8, predict="v", abar=ABAR).eval()  # untrained, u = 0
    true = (x0[:, None] - torch.cat([x0[:, None], views], dim=1)).double().numpy()
    expected = ((1 - t.numpy() / 1000)[:, None, None] * np.abs(true)).mean()
    found = load_objective("bridge").loss(network, x0, views, t, x0, ABAR, load_distance("l1"))
    assert float(found.detach()) == pytest.approx(expected, 1e-5)


def test_the_network_is_conditioned_on_the_gap_that_it_learns_to_estimate() -> None:
    network = GapNetwork(8, predict="correction", abar=ABAR)
    x0, views, noise, t = randn(64, 8), randn(64, 3, 8, seed=1), randn(64, 8, seed=2), torch.arange(64)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    torch.manual_seed(0)
    before = None
    for _ in range(150):
        loss = load_objective("gap").loss(network, x0, views, t, noise, ABAR, load_distance("l1"))
        before = before or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < before
    network.eval()
    with torch.no_grad():
        clean, noisy = network.estimate(x0).mean(), network.estimate(views.flatten(0, 1)).mean()
        assert clean < noisy
        expected = ddim(lambda x, at: network(x, at, network.estimate(x0)), x0, Sampling(50), ABAR)
        torch.testing.assert_close(infer_with_gap(network, x0, Sampling(50), ABAR), expected)
        assert not torch.equal(network(x0, t, torch.zeros(64)), network(x0, t, torch.ones(64)))


@pytest.mark.parametrize("predict", ["sample", "correction", "v"])
def test_conditioning_may_be_precomputed(predict: str) -> None:
    network, x = DiffusionNetwork(8, predict=predict, abar=ABAR).eval(), randn(5, 8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        known = network.compute_conditioning([50, 0])
        for time in (50, 0, 7):  # 7 is not precomputed
            t = torch.tensor([time])
            assert torch.equal(network(x, t, conditioning=known), network(x, t))
        assert not torch.equal(
            network(x, torch.tensor([50]), conditioning={50: known[0]}), network(x, torch.tensor([50]))
        )
        assert torch.equal(
            network(x, torch.tensor([50] * 5), conditioning={50: []}), network(x, torch.tensor([50] * 5))
        )
    assert GapNetwork(8, abar=ABAR).compute_conditioning([50]) == {}


def test_several_draws_are_averaged() -> None:
    network = DiffusionNetwork(8).eval()
    x, draws = randn(3, 8), [[randn(3, 8, seed=1)], [randn(3, 8, seed=2)]]
    how = Sampling(50, noise=2)
    with torch.no_grad():
        each = [infer_by_ddim(network, x, how, ABAR, [noises]) for noises in draws]
        torch.testing.assert_close(infer_by_ddim(network, x, how, ABAR, draws), (each[0] + each[1]) / 2)
