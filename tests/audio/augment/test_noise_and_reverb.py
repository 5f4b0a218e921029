import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.augment.corruptions.noise import Babble, add_at_snr, power
from pipeline.audio.augment.corruptions.reverb import convolve_with_unit, reverberate


@given(snr=st.floats(-20, 30), level=st.floats(1e-3, 10), seed=st.integers(0, 99))
def test_noise_lands_at_the_snr_asked_for(snr: float, level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech = rng.standard_normal(4_000).astype(np.float32)
    noise = (level * rng.standard_normal(4_000)).astype(np.float32)
    added = add_at_snr(speech, noise, snr).astype(np.float64) - speech
    assert 10 * np.log10(power(speech) / np.mean(added**2)) == pytest.approx(snr, abs=0.05)


@pytest.mark.parametrize(
    ("speech_power", "noise_power", "heard"),
    [(1e-2, 1e-2, 10.0), (1e-2, 1e-5, 20.371), (1e-5, 1e-2, -0.371), (1e-6, 1e-6, 10.0)],
)
def test_a_floor_makes_quiet_noise_milder_and_speech_noisier(
    speech_power: float, noise_power: float, heard: float
) -> None:
    """10 dB plus 10 log10 of (1 + floor / noise power) / (1 + floor / speech power)."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (2, 8_000)).astype(np.float32)
    speech, noise = signs * np.sqrt(np.float32([[speech_power], [noise_power]]))
    added = add_at_snr(speech, noise, 10.0, 1e-4).astype(np.float64) - speech
    assert 10 * np.log10(power(speech) / np.mean(added**2)) == pytest.approx(heard, abs=0.01)
    np.testing.assert_array_equal(add_at_snr(speech, noise, 10.0, 0.0), add_at_snr(speech, noise, 10.0))


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


@pytest.mark.parametrize("level", [0.01, 1.0, 30.0])
def test_a_whole_response_at_unit_energy_delays_and_changes_power(level: float) -> None:
    rng = np.random.default_rng(1)
    speech = rng.standard_normal(2_000).astype(np.float32)
    response = (level * rng.standard_normal(500) * np.exp(-np.arange(500) / 80)).astype(np.float32)
    response[:50] = 0
    exact = response.astype(np.float64)
    expected = np.convolve(speech.astype(np.float64), exact / np.sqrt((exact**2).sum()))[:2_000]
    wet = convolve_with_unit(speech, response)
    np.testing.assert_allclose(wet, expected, atol=1e-5)
    assert not wet[:50].round(5).any()
    assert wet.dtype == np.float32


def test_every_talker_is_as_loud_in_the_babble() -> None:
    time = np.arange(16_000)
    talkers = [
        (level * np.sin(2 * np.pi * f * time / 16_000)).astype(np.float32) for level, f in ((0.01, 500), (1, 900))
    ]
    spectrum = np.abs(np.fft.rfft(Babble.mix(talkers)))
    assert spectrum[500] == pytest.approx(spectrum[900], rel=1e-3)
