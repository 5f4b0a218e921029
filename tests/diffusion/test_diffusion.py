import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from pipeline.diffusion.network import Denoiser, timestep_embedding
from pipeline.diffusion.objective import seed_loss
from pipeline.diffusion.sampler import ddim_step, one_step
from pipeline.diffusion.schedule import cumulative_alphas, forward_diffuse, scaled_linear_betas


@pytest.fixture(scope="module")
def scheduler() -> DDIMScheduler:
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


def test_schedule_is_diffusers_scaled_linear(scheduler: DDIMScheduler) -> None:
    torch.testing.assert_close(ABAR, scheduler.alphas_cumprod, rtol=1e-5, atol=1e-7)
    assert ABAR[50].sqrt() == pytest.approx(0.9954, abs=5e-5)
    assert (1 - ABAR[50]).sqrt() == pytest.approx(0.096, abs=5e-4)


def test_forward_diffusion_is_diffusers(scheduler: DDIMScheduler) -> None:
    x0, noise, t = randn(6, 16), randn(6, 16, seed=1), torch.tensor([0, 1, 50, 500, 998, 999])
    torch.testing.assert_close(
        forward_diffuse(x0, t, noise, ABAR), scheduler.add_noise(x0, noise, t), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("t", [980, 500, 20])
def test_a_ddim_step_is_diffusers(scheduler: DDIMScheduler, t: int, eta: float) -> None:
    scheduler.set_timesteps(50)
    x_t, x0, noise = randn(4, 16), randn(4, 16, seed=1), randn(4, 16, seed=2)
    theirs = scheduler.step(x0, t, x_t, eta=eta, variance_noise=noise if eta else None).prev_sample
    before = ABAR[t - 20] if t >= 20 else torch.tensor(1.0)
    torch.testing.assert_close(ddim_step(x_t, x0, ABAR[t], before, eta, noise), theirs, rtol=1e-4, atol=1e-5)


def test_a_noisy_step_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="needs noise"):
        ddim_step(randn(1, 4), randn(1, 4), ABAR[9], ABAR[5], eta=1.0)


def test_one_step_returns_the_predicted_sample(scheduler: DDIMScheduler) -> None:
    x, network = randn(5, 16), Denoiser(16).eval()
    torch.nn.init.normal_(network.out[2].weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(ABAR[50].sqrt() * x, torch.full((5,), 50))
        torch.testing.assert_close(one_step(network, x, 50, ABAR), expected)
        noise = randn(5, 16, seed=3)
        noisy = network(scheduler.add_noise(x, noise, torch.full((5,), 50)), torch.full((5,), 50))
        torch.testing.assert_close(one_step(network, x, 50, ABAR, noise), noisy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dim", "parameters"), [(192, 1_373_760), (256, 2_437_888), (512, 9_725_440)])
def test_the_network_has_as_many_parameters_as_published(dim: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in Denoiser(dim).parameters()) == parameters


def test_an_untrained_correction_leaves_vectors_alone_and_an_untrained_sample_is_zero() -> None:
    x, t = randn(3, 8), torch.tensor([0, 5, 900])
    torch.testing.assert_close(Denoiser(8, predict="correction").eval()(x, t), x)
    torch.testing.assert_close(Denoiser(8, predict="sample").eval()(x, t), torch.zeros(3, 8))


def test_time_is_cosines_then_sines() -> None:
    t = torch.tensor([0, 7])
    embedding = timestep_embedding(t, 8).numpy()
    periods = 10_000 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(embedding[1], np.concatenate([np.cos(7 * periods), np.sin(7 * periods)]), rtol=1e-5)
    np.testing.assert_array_equal(embedding[0], [1] * 4 + [0] * 4)


def test_the_loss_is_the_mean_l1_over_clean_and_noisy_inputs() -> None:
    x0, views, noise, t = randn(4, 8), randn(4, 3, 8, seed=1), randn(4, 8, seed=2), torch.tensor([0, 10, 500, 999])

    def network(x: Tensor, t: Tensor) -> Tensor:
        return 2 * x + t[:, None]

    terms = []
    for k in range(4):
        inputs = x0 if k == 0 else views[:, k - 1]
        terms.append((network(forward_diffuse(inputs, t, noise, ABAR), t) - x0).abs().mean())
    torch.testing.assert_close(seed_loss(network, x0, views, t, noise, ABAR), torch.stack(terms).mean())
