import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.objectives import OBJECTIVES
from pipeline.config.train import NetworkSettings, Train
from pipeline.errors import SeedWarning, VectorError
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhancer import Enhancer
from pipeline.model.seed_model import SeedModel
from pipeline.model.single_vector import SingleVectorPath
from pipeline.model.training_stats import NormPercentiles, TrainingStats

DIM = 24


def model_of(objective: str = "seed", strength: float = 0.6, **network: Any) -> SeedModel:
    """Return a model of random weights."""
    torch.manual_seed(0)
    model = SeedModel(DIM, Train(objective=objective, network=NetworkSettings(**network))).eval().requires_grad_(False)
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=DIM**-0.5)
    model.mean.normal_()
    model.matrix.copy_(torch.eye(DIM) + 0.3 * torch.randn(DIM, DIM) * DIM**-0.5)
    model.strength.fill_(strength)
    return model


def vectors(count: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("predict", ["sample", "correction", "epsilon", "v"])
def test_results_have_the_bits_of_the_models(objective: str, predict: str, strength: float) -> None:
    try:
        model = model_of(objective, blocks=2, predict=predict)
    except ValueError:
        pytest.skip("no such network")
    how = Sampling(40, strength=strength)
    alone = SingleVectorPath(model, how)
    for vector in vectors(6):
        with torch.no_grad():
            expected = model(vector[None], how)[0]
        found = alone(vector)
        if objective == "gap":  # its network has a forward pass of its own
            assert found is None
        else:
            assert found is not None
            assert torch.equal(found, expected)
        assert torch.equal(Enhancer(model, timestep=40).enhance(vector, strength), expected)


@pytest.mark.parametrize("shape", [(DIM,), (1, DIM), (1, 1, DIM)])
def test_shape_and_kind_come_back(shape: tuple[int, ...]) -> None:
    alone, vector = SingleVectorPath(model_of(), Sampling(strength=0.6)), vectors(1).reshape(shape)
    before = vector.clone()
    found, other = alone(vector), alone(vector.numpy())
    assert isinstance(found, Tensor)
    assert isinstance(other, np.ndarray)
    assert found.shape == other.shape == shape
    np.testing.assert_array_equal(found.numpy(), other)
    other[:] = 0  # it is the caller's
    assert torch.equal(vector, before)


@pytest.mark.parametrize(
    "x",
    [
        vectors(2),
        vectors(1)[:, :8],
        vectors(1).reshape(DIM, 1),
        vectors(1).double(),
        vectors(1).numpy().astype(">f4"),
        vectors(2).numpy()[:, ::2].reshape(-1)[: DIM // 2],
        vectors(1).tolist(),
        vectors(1) * torch.nan,
        vectors(1) / 0,
        vectors(1) * 0,
        vectors(1) * 1e30,
        vectors(1) * 1e-3,
        vectors(1) * 100,
    ],
    ids=str,
)
def test_what_is_unusual_needs_a_closer_look(x: Any) -> None:
    model = model_of()
    around = NormPercentiles(p1=3, p50=5, p99=7)
    model.training_stats = TrainingStats(clean_norm=around, noisy_norm=around, atypicality=3)
    assert SingleVectorPath(model, Sampling(strength=0.6))(x) is None


def test_read_only_arrays_and_callers_with_autocast_are_left_to_others() -> None:
    alone, x = SingleVectorPath(model_of(), Sampling(strength=0.6)), vectors(1).numpy()
    x.flags.writeable = False
    assert alone(x) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert alone(vectors(1)) is None


def test_threads_may_be_the_first() -> None:
    model, how = model_of(blocks=3), Sampling(strength=0.6)
    rows = list(vectors(64))
    with torch.no_grad():
        expected = [model(row[None], how)[0] for row in rows]
    alone = SingleVectorPath(model, how)
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(alone, rows), expected, strict=True):
            assert found is not None
            assert torch.equal(found, wanted)


def test_an_enhancer_can_be_copied_once_it_was_used() -> None:
    enhancer, x = Enhancer(model_of()), vectors(1)
    expected = enhancer.enhance(x)
    for other in (copy.copy(enhancer), copy.deepcopy(enhancer), pickle.loads(pickle.dumps(enhancer))):
        assert torch.equal(other.enhance(x), expected)


def test_an_enhancer_looks_closer_where_it_must() -> None:
    enhancer, x = Enhancer(model_of()), vectors(1)
    with torch.no_grad():
        assert torch.equal(enhancer.enhance(x), enhancer.model(x, Sampling(strength=0.6)))
        assert torch.equal(enhancer.enhance(x, 0.3), enhancer.model(x, Sampling(strength=0.3)))
    assert torch.equal(enhancer.enhance(x, 0.0), x)
    assert torch.equal(enhancer.enhance(0 * x), 0 * x)
    np.testing.assert_allclose(enhancer.enhance(1e30 * x) / 1e30, enhancer.enhance(1e29 * x) / 1e29, rtol=1e-4)
    with pytest.raises(VectorError, match="NaN"):
        enhancer.enhance(x * torch.nan)
    around = NormPercentiles(p1=3, p50=5, p99=7)
    enhancer.model.training_stats = TrainingStats(clean_norm=around, noisy_norm=around, atypicality=3)
    with pytest.warns(SeedWarning, match="median length"):
        Enhancer(enhancer.model).enhance(100 * x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_models_elsewhere_go_their_own_way() -> None:
    model, x = model_of(), vectors(1)
    expected = Enhancer(model).enhance(x)
    elsewhere = Enhancer(model.to("cuda"))
    torch.testing.assert_close(elsewhere.enhance(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(elsewhere.enhance(x.cuda()).cpu(), expected, atol=1e-4, rtol=1e-4)
