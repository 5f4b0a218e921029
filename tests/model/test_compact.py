from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Enhancer
from pipeline.errors import ConfigError
from pipeline.model.adaptation import adapt_model
from pipeline.model.apply import check_sampling, enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.training.train import train
from tests.training.test_train import DIM, ENCODER, QUICK, make_store

SETTINGS = QUICK.model_copy(update={"max_epochs": 2, "max_timestep": 100, "folds": 0})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SeedModel:
    store, speakers = make_store(tmp_path_factory.mktemp("store") / "s.zarr")
    return train(store, SETTINGS, 0, 50, speakers).model


def raw(count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)


def test_a_compact_file_is_small_and_gives_nearly_the_same(model: SeedModel, tmp_path: Path) -> None:
    for name, compact in (("whole", False), ("small", True)):
        save_model(tmp_path / f"{name}.safetensors", model, ENCODER, {"timestep": 50}, compact=compact)
    sizes = [
        sum(tensor.nbytes for tensor in load_tensors(tmp_path / f"{name}.safetensors").values())
        for name in ("whole", "small")
    ]
    assert sizes[1] < 0.4 * sizes[0]
    loaded = load_model(tmp_path / "small.safetensors")
    assert (loaded.timestep, loaded.model.only_timestep) == (50, 50)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.model.state_dict().values())
    expected = enhance_vectors(model, raw(), Sampling(50, strength=0.7))
    found = enhance_vectors(loaded.model, raw(), Sampling(50, strength=0.7))
    # Half precision rounds weights by 2^-11 at most; a sum of 16 such products hardly exceeds ten times that.
    assert np.linalg.norm(found - expected, axis=1).max() < 10 * 2**-11 * np.linalg.norm(expected, axis=1).max()
    single = Enhancer.load(tmp_path / "small.safetensors").enhance(raw()[3], 0.7)
    np.testing.assert_allclose(single, found[3], atol=1e-5)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_the_time_embedding_is_exact_at_its_timestep(model: SeedModel, tmp_path: Path) -> None:
    """Rounded to half precision first, a model loses nothing more."""
    save_model(tmp_path / "a.safetensors", model, ENCODER, {"timestep": 50}, compact=True)
    once = load_model(tmp_path / "a.safetensors").model
    save_model(tmp_path / "b.safetensors", once, ENCODER, {"timestep": 50}, compact=True)
    twice = load_model(tmp_path / "b.safetensors").model
    np.testing.assert_array_equal(*(enhance_vectors(each, raw(), Sampling(50)) for each in (once, twice)))


def test_other_timesteps_and_steps_are_refused(model: SeedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, model, ENCODER, {"timestep": 50}, compact=True)
    loaded = load_model(path).model
    check_sampling(loaded, Sampling(50), path)
    for sampling in (Sampling(20), Sampling(50, 2)):
        with pytest.raises(ConfigError, match="compact model, which enhances in one step from timestep 50 only"):
            check_sampling(loaded, sampling, path)


def test_it_is_adapted_and_not_trained_further(model: SeedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, model, ENCODER, {"timestep": 50}, compact=True)
    loaded = load_model(path)
    store, speakers = make_store(tmp_path / "s.zarr")
    vectors = store.read()[:, 0, 0] + 3
    adapted = adapt_model(loaded.model, vectors, loaded.sha256)
    save_model(tmp_path / "a.safetensors", adapted, ENCODER, {"timestep": 50})
    again = load_model(tmp_path / "a.safetensors")
    assert again.model.only_timestep == 50
    np.testing.assert_array_equal(
        enhance_vectors(again.model, raw(), Sampling(50)), enhance_vectors(adapted, raw(), Sampling(50))
    )
    with pytest.raises(ConfigError, match="compact model, which cannot be trained further"):
        train(store, SETTINGS, 0, 50, speakers, init=path)


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    gap = SeedModel(DIM, QUICK.model_copy(update={"objective": "gap"}))
    with pytest.raises(ConfigError, match="objective gap: its network cannot be written in the compact form"):
        save_model(tmp_path / "m.safetensors", gap, ENCODER, {}, compact=True)
    assert not list(tmp_path.iterdir())
