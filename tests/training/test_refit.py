from pathlib import Path

import numpy as np
import pytest

from pipeline import Enhancer
from pipeline.errors import ConfigError, TrainingError, VectorError
from pipeline.metrics import eer
from pipeline.model.adaptation import adapt_model
from pipeline.model.apply import enhance_vectors
from pipeline.model.card import card
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.training.api import train
from pipeline.training.refit import PRIOR_RECORDINGS, choose_strength, refit_halves, refit_model
from tests.linear_encoder import DIM, encoded, speech

SPEECH, OTHERS, TESTED = speech(), speech(60, each=1, seed=1), speech(40, seed=2)
DRIFT = 2 * np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
ENCODER = {"encoder": "toy", "family": "linear", "weights_sha256": "ab", "front_end": None, "dim": DIM}


def turned(values: np.ndarray) -> np.ndarray:
    """Return embeddings of a domain with another mean, where noise moves vectors in other directions."""
    moved = values[:, :, 1:] - values[:, :, :1]
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0]
    return np.concatenate([values[:, :, :1], values[:, :, :1] + moved @ rotation.T], axis=2).astype(np.float32) + DRIFT


RECORDINGS, TESTS = turned(encoded(OTHERS)), turned(encoded(TESTED))


@pytest.fixture(scope="module")
def model() -> SeedModel:
    values = encoded(SPEECH)
    settings = {"max_epochs": 5, "batch_size": 64, "validation": 0.25, "device": "cpu", "folds": 0}
    return train(values[:, :, 0], values[:, :, 1:], speakers=SPEECH.speakers, settings=settings).model


def noisy_rate(model: SeedModel, strength: float | None = 1.0) -> float:
    """Return the EER of clean enrolments and noisy tests of other speakers."""
    clean, noisy = (
        enhance_vectors(model, np.ascontiguousarray(TESTS[:, 0, view]), Sampling(50, strength=strength))
        for view in (0, 1)
    )
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (clean, noisy))
    speakers = np.array(TESTED.speakers)
    off = ~np.eye(len(speakers), dtype=bool)
    return eer((first @ second.T)[off], (speakers[:, None] == speakers)[off])


def test_the_whitening_is_that_of_the_pooled_displacements(model: SeedModel) -> None:
    refitted = refit_model(model, RECORDINGS)
    moved = (RECORDINGS - RECORDINGS[:, :, :1].mean(axis=1, keepdims=True)).reshape(-1, DIM).astype(np.float64)
    trained = np.linalg.inv(model.matrix.numpy().astype(np.float64) @ model.matrix.numpy().T)
    trained -= np.trace(trained) / 2 / DIM * np.eye(DIM)
    own, weight = moved.T @ moved, 60 / (60 + PRIOR_RECORDINGS)
    pooled = weight * own / np.trace(own) + (1 - weight) * trained / np.trace(trained)
    matrix = refitted.matrix.numpy().astype(np.float64)
    shrunk = pooled + np.trace(pooled) / DIM * np.eye(DIM)
    np.testing.assert_allclose(matrix @ shrunk @ matrix.T, np.eye(DIM), atol=1e-4)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
    assert refitted.network is model.network
    assert refitted.adaptation is not None
    assert (refitted.adaptation.vectors, refitted.adaptation.recordings) == (60, 60)
    assert refitted.adaptation.weight == pytest.approx(60 / 70)


def test_it_helps_more_than_the_mean_alone(model: SeedModel) -> None:
    before = noisy_rate(model)
    raw, mean = noisy_rate(model, 0.0), noisy_rate(adapt_model(model, RECORDINGS[:, 0, 0]))
    assert noisy_rate(refit_model(model, RECORDINGS)) < min(0.95 * mean, raw)
    assert noisy_rate(model) == before  # the model itself is untouched


def test_the_strength_is_found_without_labels(model: SeedModel) -> None:
    halves = refit_halves(model, RECORDINGS)
    assert [len(part.crops) for part in halves] == [60, 60]  # two crops of each of thirty recordings
    assert halves[0].speakers[:4] == ["0", "0", "1", "1"]
    np.testing.assert_array_equal(halves[1].crops[1, 0], RECORDINGS[1, 1])
    np.testing.assert_array_equal(halves[0].model.matrix, refit_model(model, RECORDINGS[1::2]).matrix)
    strength = choose_strength(halves, 50, 0)
    assert strength > 0
    assert float(refit_model(model, RECORDINGS, strength).strength) == pytest.approx(strength)
    noise = np.random.default_rng(0).standard_normal(RECORDINGS.shape).astype(np.float32)
    assert choose_strength(refit_halves(model, noise + 5), 50, 0) <= strength


def test_a_refitted_model_is_one_of_its_own(model: SeedModel, tmp_path: Path) -> None:
    path = tmp_path / "refitted.safetensors"
    save_model(path, refit_model(model, RECORDINGS, 0.8, "ab" * 32), ENCODER, {"timestep": 50})
    loaded, enhancer = load_model(path), Enhancer.load(path)
    assert loaded.base_sha256 == enhancer.base_sha256 == loaded.sha256
    assert enhancer.strength == pytest.approx(0.8)
    assert f"| 60 recordings, mean and whitening, without labels; their mean has a weight of {60 / 70:.3g};" in card(
        loaded, "m"
    )
    again = enhancer.adapt(TESTS[:, 0, 0])  # adapted further by its mean, it can be compared with itself
    assert again.base_sha256 == loaded.sha256
    assert again.adaptation is not None
    assert again.adaptation.recordings == 0
    np.testing.assert_array_equal(again.model.matrix, loaded.model.matrix)
    assert again.strength == enhancer.strength  # which was found on recordings
    with pytest.raises(ConfigError, match="was refitted to recordings already"):
        refit_model(again.model, RECORDINGS)


def test_what_cannot_be_refitted_is_an_error(model: SeedModel) -> None:
    with pytest.raises(VectorError, match="9 recordings to adapt the model to; at least 10"):
        refit_model(model, RECORDINGS[:9])
    same = np.broadcast_to(RECORDINGS[:, :1, :1], RECORDINGS.shape)
    with pytest.raises(TrainingError, match="corrupted crops of the recordings are equal to the clean ones"):
        refit_model(model, same)


def test_without_a_whitening_only_the_mean_is_adapted() -> None:
    values = encoded(SPEECH)
    settings = {"max_epochs": 1, "device": "cpu", "folds": 0, "network": {"precondition": "center"}}
    model = train(values[:, :, 0], values[:, :, 1:], speakers=SPEECH.speakers, settings=settings).model
    refitted = refit_model(model, RECORDINGS)
    np.testing.assert_array_equal(refitted.matrix, model.matrix)
    assert refitted.shift.any()
