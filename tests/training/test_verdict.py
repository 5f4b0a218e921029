import numpy as np
import pytest

from pipeline.errors import TrialError
from pipeline.metrics import eer
from pipeline.model.seed_model import SeedModel
from pipeline.training.api import train
from pipeline.training.verdict import ADAPTED, AS_IS, MIN_RECORDINGS, RAW, _measure, try_model
from tests.linear_encoder import DIM, encoded, speech

SPEECH = speech()
CROPS = encoded(speech(40, each=1, seed=1))
"""Two crops of each of forty recordings, of forty speakers [40, 2, views, D]."""
DRIFT = 2 * np.random.default_rng(0).standard_normal(DIM).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> SeedModel:
    values = encoded(SPEECH)
    settings = {"max_epochs": 5, "batch_size": 64, "validation": 0.25, "device": "cpu", "folds": 0}
    return train(values[:, :, 0], values[:, :, 1:], speakers=SPEECH.speakers, settings=settings).model


def test_rates_are_of_crops_of_the_same_recording_and_of_different_ones(model: SeedModel) -> None:
    verdict = try_model(model, CROPS, 50)
    unit = CROPS / np.linalg.norm(CROPS, axis=-1, keepdims=True)
    rates = []
    for view in range(CROPS.shape[2]):
        scores, targets = [], []
        for half in (unit[0::2], unit[1::2]):  # recordings of the other half were enhanced by another model
            scores += [half[:, 0, 0] @ half[:, 1, view].T, half[:, 1, 0] @ half[:, 0, view].T]
            targets += [np.eye(len(half), dtype=bool)] * 2
        rates.append(100 * eer(np.concatenate(scores, axis=None), np.concatenate(targets, axis=None)))
    clean, noisy = verdict.rates[RAW].clean, verdict.rates[RAW].noisy
    assert clean[0] == pytest.approx(rates[0])
    assert noisy[0] == pytest.approx(np.mean(rates[1:]))
    for estimate, low, high in (clean, noisy):
        assert low <= estimate <= high
    assert list(verdict.rates) == [RAW, AS_IS, ADAPTED]


def test_what_two_models_do_apart_does_not_count(model: SeedModel) -> None:
    """Moving the halves apart makes trials across them easy; there is nothing to gain from it."""
    rng = np.random.default_rng(1)
    plain = rng.standard_normal((40, 2, 3, DIM)).astype(np.float32) + 3
    apart = plain.copy()
    apart[0::2] += 5
    apart[1::2] -= 5
    assert _measure({RAW: plain, ADAPTED: apart}, 0)[ADAPTED][0, 1] > 40


def test_in_domain_the_model_is_used(model: SeedModel) -> None:
    verdict = try_model(model, CROPS, 50)
    assert verdict.best in (AS_IS, ADAPTED)
    assert verdict.rates[verdict.best].noisy[0] < verdict.rates[RAW].noisy[0]


def test_out_of_domain_it_is_adapted(model: SeedModel) -> None:
    verdict = try_model(model, CROPS + DRIFT, 50)
    assert (verdict.best, verdict.strength) == (ADAPTED, 0.0)
    assert verdict.atypicality > 2
    assert verdict.rates[AS_IS] == verdict.rates[RAW]
    assert "adapted, noisy EER -" in verdict.reason


def test_a_model_that_does_not_help_is_left_off(model: SeedModel) -> None:
    rng = np.random.default_rng(0)
    lost = rng.standard_normal(CROPS.shape).astype(np.float32)  # no recording is like itself
    assert try_model(model, lost + 5, 50).best == RAW


def test_the_same_recordings_give_the_same_verdict_and_few_give_none(model: SeedModel) -> None:
    assert try_model(model, CROPS, 50) == try_model(model, CROPS, 50)
    with pytest.raises(TrialError, match=rf"19 readable recordings; at least {MIN_RECORDINGS}"):
        try_model(model, CROPS[:19], 50)
