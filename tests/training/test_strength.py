from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.spatial.transform import Rotation, Slerp

from pipeline.config.train import NetworkSettings, Train
from pipeline.model.diffusion.interpolation import interpolate
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import FAMILIAR, FOREIGN, domain_confidence
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import save_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.strength import (
    RIDGE,
    FoldModel,
    HeldOut,
    calibrate_strength,
    find_strength,
    fit_domain,
    measure_crop_eers,
)

DIM = 6
SETTINGS = Train(max_epochs=0, network=NetworkSettings(precondition="center"))
ENCODER = {"encoder": "toy", "weights_sha256": "ab", "dim": DIM}


def crops(speakers: int = 12, each: int = 4, noise: float = 1.0, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Four utterances of each speaker, two crops of them, clean and in noise that has a direction."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((speakers, 1, 1, DIM)), each, axis=0)
    values = centres + 0.3 * rng.standard_normal((speakers * each, 2, 3, DIM)) + shift
    values[:, :, 1:, 0] += noise * rng.standard_normal((speakers * each, 2, 2))
    return values.astype(np.float32)


def names(speakers: int = 12, each: int = 4) -> list[str | None]:
    return [f"s{number // each}" for number in range(speakers * each)]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_interpolation_follows_the_great_circle_at_the_raw_length(share: float) -> None:
    a, b = torch.tensor([[3.0, 0, 0]]), torch.tensor([[0.3, 0.5, 0]])
    turn = Rotation.from_rotvec([[0, 0, 0], [0, 0, np.arctan2(0.5, 0.3)]])
    expected = Slerp([0, 1], turn)([share]).apply([3, 0, 0])
    np.testing.assert_allclose(interpolate(a, b, share).numpy(), expected, atol=1e-5)


def test_interpolation_ends_at_both_vectors_exactly_and_handles_near_and_opposite_ones() -> None:
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    assert torch.equal(interpolate(a, b, 0.0), a)
    assert torch.equal(interpolate(a, b, 1.0), b)
    torch.testing.assert_close(interpolate(a, 2 * a, 0.3), a)
    torch.testing.assert_close(interpolate(a, a + 1e-6, 0.3), a, atol=1e-5, rtol=0)
    assert torch.isfinite(interpolate(a, -a, 0.5)).all()
    assert torch.isfinite(interpolate(torch.zeros(1, 8), b[:1], 0.5)).all()


def test_the_domain_is_mahalanobis_distance_in_medians_of_the_held_out() -> None:
    rng = np.random.default_rng(0)
    seen, unseen = (rng.standard_normal((count, DIM)).astype(np.float32) + 2 for count in (400, 50))
    mean, matrix = fit_domain(seen, unseen)
    units, others = (each / np.linalg.norm(each, axis=1, keepdims=True).astype(np.float64) for each in (seen, unseen))
    covariance = np.cov(units.T, bias=True)
    covariance += RIDGE * np.trace(covariance) / DIM * np.eye(DIM)
    far = [mahalanobis(each, units.mean(axis=0), np.linalg.inv(covariance)) ** 2 for each in others]
    found = np.square((others - mean) @ matrix.T).sum(axis=1)
    np.testing.assert_allclose(found, far / np.median(far), rtol=1e-3)


def test_the_strength_is_where_noise_is_least_among_those_that_keep_clean_speech() -> None:
    model, values, speakers = SeedModel(DIM, SETTINGS), crops(noise=3.0), names()
    model.matrix[0, 0] = 0.1  # which takes the noise away
    raw = torch.from_numpy(values.reshape(-1, DIM))
    with torch.no_grad():
        whole = model(raw, Sampling(50))
    eers = {}
    for share in np.linspace(0, 1, 11):
        found = measure_crop_eers(interpolate(raw, whole, float(share)).numpy().reshape(values.shape), speakers, 0)
        assert found
        eers[float(share)] = found
    found = find_strength([HeldOut(model, values, speakers)], 50, 1.0, 0).strength
    assert eers[found][1] <= 1.02 * min(noisy for _, noisy in eers.values())  # no strength harms clean speech here
    assert all(eers[share][1] > 1.02 * eers[found][1] for share in eers if share < found)
    assert min(noisy for _, noisy in eers.values()) < 0.7 * eers[0.0][1]
    assert find_strength([HeldOut(model, values, speakers)], 50, 0.1, 0).strength <= 0.1


def test_strengths_that_clearly_harm_clean_speech_are_ruled_out() -> None:
    model, speakers = SeedModel(DIM, SETTINGS), names(20)
    values = crops(20, noise=3.0)
    model.matrix.copy_(torch.diag(torch.tensor([0.01, 1, 1, 1, 0.01, 0.01])))  # the noise goes, and half of the voice
    raw = torch.from_numpy(values.reshape(-1, DIM))
    with torch.no_grad():
        whole = model(raw, Sampling(50))
    found = find_strength([HeldOut(model, values, speakers)], 50, 1.0, 0).strength
    eers = {}
    for share in (0.0, found, 1.0):
        eers[share] = measure_crop_eers(interpolate(raw, whole, share).numpy().reshape(values.shape), speakers, 0)
    assert 0 < found < 1
    assert eers[1.0][1] < eers[found][1] < eers[0.0][1]  # noise alone would ask for all of the way
    assert eers[1.0][0] > 1.5 * eers[0.0][0]
    assert eers[found][0] < 1.3 * eers[0.0][0]


def test_the_strength_is_zero_if_enhancement_does_not_help() -> None:
    model, values, speakers = SeedModel(DIM, SETTINGS), crops(noise=3.0), names()
    assert find_strength([HeldOut(model, values, speakers)], 50, 1.0, 0).strength == 0  # the same vectors
    model.matrix.copy_(torch.diag(torch.tensor([1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3])))  # the noise alone
    assert find_strength([HeldOut(model, values, speakers)], 50, 1.0, 0).strength == 0
    for labels in ([None] * len(speakers), ["one"] * len(speakers)):  # nobody can tell
        assert find_strength([HeldOut(model, values, labels)], 50, 1.0, 0).strength == 0.4
        assert find_strength([HeldOut(model, values, labels)], 50, 0.3, 0).strength == 0.3


def test_eers_of_crops_against_a_plain_loop() -> None:
    from sklearn.metrics import roc_curve

    values, speakers = crops(6, noise=2.0), names(6)
    units = values / np.linalg.norm(values, axis=3, keepdims=True)
    found = measure_crop_eers(values, speakers, 0)
    assert found
    for view, eer in ((0, found[0]), (None, found[1])):
        each = []
        for number in (0,) if view == 0 else (1, 2):
            scores, target = [], []
            for one, enrol in enumerate(units[:, :, 0].mean(axis=1)):
                for other, test in enumerate(units[:, :, number]):
                    if one != other:
                        scores += [test[draw] @ enrol / np.linalg.norm(enrol) for draw in range(2)]
                        target += 2 * [speakers[one] == speakers[other]]
            fpr, tpr, _ = roc_curve(target, scores, drop_intermediate=False)
            point = np.argmin(np.abs(fpr - (1 - tpr)))
            each.append(50 * (fpr[point] + 1 - tpr[point]))
        assert eer == pytest.approx(np.mean(each), abs=0.5)


def store_of(path: Path, values: np.ndarray) -> EmbeddingStore:
    ids = [f"u{number:03}" for number in range(len(values))]
    write_store(path, ids, values, np.full(len(ids), OK, np.uint8), ENCODER)
    return EmbeddingStore.open(path)


def test_out_of_domain_speech_is_returned_raw_and_in_domain_speech_is_not(tmp_path: Path) -> None:
    store = store_of(tmp_path / "train.zarr", crops(shift=3.0))
    held = np.arange(48) >= 36
    model = SeedModel(DIM, SETTINGS)
    calibrate_strength(
        model, store, held, dict(zip(store.utterances, names(), strict=True)), 50, 0, [FoldModel(model, held)]
    )
    model.strength.fill_(0.4)
    usual, foreign = crops(4, shift=3.0, seed=1), crops(4, shift=-3.0, seed=1)
    assert 0.2 < domain_confidence(model, usual.reshape(-1, DIM))[1] < 2
    trust, atypicality = domain_confidence(model, foreign.reshape(-1, DIM))
    assert trust == 0
    assert atypicality > FOREIGN
    assert domain_confidence(model, usual[:0].reshape(-1, DIM)) == (0.0, np.inf)

    save_model(tmp_path / "m.safetensors", model, ENCODER, {})
    there, here = store_of(tmp_path / "f.zarr", foreign), store_of(tmp_path / "u.zarr", usual)
    done = enhance_store(there, tmp_path / "m.safetensors", tmp_path / "fe.zarr")
    assert (done.strength, done.vectors) == (0, foreign.size // DIM)
    np.testing.assert_array_equal(EmbeddingStore.open(tmp_path / "fe.zarr").read(), foreign)
    assert enhance_store(here, tmp_path / "m.safetensors", tmp_path / "ue.zarr").strength == pytest.approx(0.4)
    enhance_store(
        there, tmp_path / "m.safetensors", tmp_path / "ff.zarr", Sampling(50, strength=1.0)
    )  # who insists, gets it
    assert not np.array_equal(EmbeddingStore.open(tmp_path / "ff.zarr").read(), foreign)


def test_trust_falls_linearly() -> None:
    model = SeedModel(2, SETTINGS)
    model.domain_matrix.copy_(torch.eye(2))
    for median, trust in ((FAMILIAR, 1.0), ((FAMILIAR + FOREIGN) / 2, 0.5), (FOREIGN, 0.0)):
        model.domain_mean.copy_(torch.tensor([1 - median**0.5, 0]))
        assert domain_confidence(model, np.array([[5.0, 0]], dtype=np.float32)) == pytest.approx(
            (trust, median), abs=1e-4
        )


def test_utterances_of_a_large_store_are_chosen_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.strength.UTTERANCES", 8)
    store, models = store_of(tmp_path / "train.zarr", crops()), []
    for seed in (0, 0, 1):
        model = SeedModel(DIM, SETTINGS)
        calibrate_strength(model, store, np.arange(48) >= 36, {}, 50, seed, [FoldModel(model, np.arange(48) >= 36)])
        models.append(model.state_dict())
    assert torch.equal(models[0]["domain_matrix"], models[1]["domain_matrix"])
    assert float(models[0]["strength"]) == pytest.approx(0.4)
