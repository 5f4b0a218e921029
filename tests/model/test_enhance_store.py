"""Stores that somebody made otherwise, and ways that a model was not trained for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Enhancer
from pipeline.errors import ConfigError, StoreError
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import load_model, save_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.train import train
from stages.cli import main
from tests.training.test_train import DIM, ENCODER, QUICK, make_store


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    store, speakers = make_store(folder / "s.zarr")
    settings = QUICK.model_copy(update={"max_epochs": 2, "max_timestep": 100, "folds": 0})
    made = train(store, settings, 0, 50, speakers)
    save_model(folder / "m.safetensors", made.model, store.encoder(), made.summary())
    return folder / "m.safetensors"


def stored(path: Path, vectors: np.ndarray) -> EmbeddingStore:
    ids = [f"u{n}" for n in range(len(vectors))]
    write_store(path, ids, vectors.astype(np.float32)[:, None, None], np.full(len(ids), OK, np.uint8), ENCODER)
    return EmbeddingStore.open(path)


def usual(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, DIM)).astype(np.float32)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_a_store_becomes_what_the_library_makes_of_its_vectors(tmp_path: Path, trained: Path, strength: float) -> None:
    vectors = usual(40)
    vectors[3], vectors[5], vectors[6], vectors[7] = 0, 1e19 * vectors[5], 1e30 * vectors[6], 1e-20 * vectors[7]
    enhance_store(stored(tmp_path / "s.zarr", vectors), trained, tmp_path / "e.zarr", Sampling(strength=strength))
    ours = EmbeddingStore.open(tmp_path / "e.zarr").read()[:, 0, 0]
    assert np.isfinite(ours).all()
    np.testing.assert_array_equal(ours[3], np.zeros(DIM))
    expected = Enhancer.load(trained).enhance(vectors, strength)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_vectors_of_another_length_are_told_and_usual_ones_are_not(tmp_path: Path, trained: Path) -> None:
    warnings: list[str] = []
    enhance_store(stored(tmp_path / "s.zarr", usual(40)), trained, tmp_path / "e.zarr", warn=warnings.append)
    assert warnings == []
    enhance_store(stored(tmp_path / "ten.zarr", 30 * usual(40)), trained, tmp_path / "f.zarr", warn=warnings.append)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{tmp_path / 'ten.zarr'}: vectors have a median length of ")
    assert "neither normalised nor scaled" in warnings[0]


def test_vectors_that_are_no_numbers_are_named(tmp_path: Path, trained: Path) -> None:
    vectors = usual(9)
    vectors[4, 2], vectors[6, 0] = np.nan, np.inf
    for name, row in (("nan.zarr", 4), ("inf.zarr", 6)):
        with pytest.raises(StoreError, match=rf"{name}: .*hold NaN"):
            enhance_store(stored(tmp_path / name, vectors[[0, row]]), trained, tmp_path / "e.zarr")
    assert not (tmp_path / "e.zarr").exists()
    model = load_model(trained).model
    out = enhance_vectors(model, vectors, Sampling())
    np.testing.assert_array_equal(np.isnan(out).any(axis=1), np.arange(9) == 4)
    np.testing.assert_allclose(out[:4], enhance_vectors(model, vectors[:4], Sampling()), atol=1e-5)


def test_the_timestep_is_asked_of_the_model_and_not_of_the_parameters(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.yaml").write_text("train: {max_timestep: null}")
    torch.manual_seed(0)
    content = load_model(trained)
    content.model.settings = QUICK  # trained at all timesteps
    save_model(tmp_path / "all.safetensors", content.model, content.encoder, {"timestep": 50})
    stored(tmp_path / "s.zarr", usual(4))

    def code(*args: str | Path) -> int:
        try:
            main(["enhance", "--store", "s.zarr", "--out", "e.zarr", *map(str, args)])
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    assert code("--model", "all.safetensors", "--timestep", "500", "--strength", "1") == 0
    stored_as = json.loads((tmp_path / "e.zarr/zarr.json").read_text())["attributes"]
    assert stored_as["timestep"] == 500
    capsys.readouterr()
    assert code("--model", trained, "--timestep", "500", "--params", "any.yaml") == 1
    assert "timestep 500: cannot be used with" in (err := capsys.readouterr().err)
    assert "nothing is learnt above max_timestep, which is 100" in err
    assert code("--model", "all.safetensors", "--timestep", "1000") == 1
    with pytest.raises(ConfigError, match="timestep 101: nothing is learnt above max_timestep, which is 100"):
        train(EmbeddingStore.open(tmp_path / "s.zarr"), QUICK.model_copy(update={"max_timestep": 100}), 0, 101)
