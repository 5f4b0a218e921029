import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.augment.corruptions.noise import Babble, add_at_snr, power
from pipeline.audio.augment.corruptions.reverb import reverberate


@given(snr=st.floats(-20, 30), level=st.floats(1e-3, 10), seed=st.integers(0, 99))
def test_noise_lands_at_the_snr_asked_for(snr: float, level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech = rng.standard_normal(4_000).astype(np.float32)
    noise = (level * rng.standard_normal(4_000)).astype(np.float32)
    added = add_at_snr(speech, noise, snr).astype(np.float64) - speech
    assert 10 * np.log10(power(speech) / np.mean(added**2)) == pytest.approx(snr, abs=0.05)


def test_silent_noise_leaves_speech_as_it_was() -> None:
    speech = np.ones(100, dtype=np.float32)
    np.testing.assert_array_equal(add_at_snr(speech, np.zeros(100, dtype=np.float32), 0), speech)


def test_a_delayed_pulse_is_a_room_that_changes_nothing() -> None:
    speech = np.random.default_rng(0).standard_normal(3_000).astype(np.float32)
    response = np.zeros(400, dtype=np.float32)
    response[123] = -0.5
    np.testing.assert_allclose(reverberate(speech, response), -speech, rtol=1e-4, atol=1e-5)


def test_reverberation_is_convolution_from_the_direct_sound_on_at_the_same_power() -> None:
    rng = np.random.default_rng(1)
    speech = rng.standard_normal(2_000).astype(np.float32)
    tail = (rng.standard_normal(500) * np.exp(-np.arange(500) / 80)).astype(np.float32)
    tail[0] = 5.0
    wet = reverberate(speech, np.concatenate([np.zeros(50, dtype=np.float32), tail]))
    direct = np.convolve(speech.astype(np.float64), tail)[:2_000]
    direct *= np.sqrt(power(speech) / np.mean(direct**2))
    np.testing.assert_allclose(wet, direct, atol=1e-4)
    assert power(wet) == pytest.approx(power(speech), rel=1e-5)


def test_every_talker_is_as_loud_in_the_babble() -> None:
    time = np.arange(16_000)
    talkers = [
        (level * np.sin(2 * np.pi * f * time / 16_000)).astype(np.float32) for level, f in ((0.01, 500), (1, 900))
    ]
    spectrum = np.abs(np.fft.rfft(Babble.mix(talkers)))
    assert spectrum[500] == pytest.approx(spectrum[900], rel=1e-3)
