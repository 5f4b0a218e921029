import numpy as np
import pytest
from scipy.signal import find_peaks, hilbert, welch

from pipeline.data.demo import music, noise
from pipeline.data.demo.noise import TEST, TRAIN


def coloured(seed: int, seconds: float, slope: float, peaks: tuple[float, ...] = ()) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return noise.scale_to_peak(noise.shape_noise(rng, noise.count_samples(seconds), slope, peaks))


MAKERS = [noise.stationary_noise, noise.modulated_noise, noise.machine_noise, music.make_music]


@pytest.mark.parametrize("style", [TRAIN, TEST], ids=["train", "test"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_pure_function_of_the_seed(maker, style) -> None:
    wave = maker(7, 3.0, style)
    assert wave.dtype == np.float32
    assert wave.shape == (48000,)
    assert np.abs(wave).max() == pytest.approx(noise.PEAK)
    assert np.sqrt(np.mean(wave**2)) > 0.02
    assert abs(wave.mean()) < 0.02
    np.testing.assert_array_equal(wave, maker(7, 3.0, style))
    assert not np.array_equal(wave, maker(8, 3.0, style))


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_spectrum_falls_as_asked(slope: float) -> None:
    frequency, power = welch(coloured(3, 20.0, slope), noise.SAMPLE_RATE, nperseg=2048)
    band = (frequency > 150) & (frequency < 6000)
    measured = -np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert measured == pytest.approx(slope, abs=0.05)


def test_peaks_stand_where_asked_and_are_9_db_high() -> None:
    frequency, power = welch(coloured(3, 20.0, 0.0, (1000.0,)), noise.SAMPLE_RATE, nperseg=1024)
    level = 10 * np.log10(power)
    floor = np.median(level[frequency > 3000])
    top = level[(frequency > 900) & (frequency < 1100)].mean() - floor
    assert top == pytest.approx(20 * np.log10(2.8), abs=1.0)


def test_modulated_noise_swells_at_a_rate_of_its_style() -> None:
    for style in (TRAIN, TEST):
        for seed in range(4):
            envelope = np.abs(hilbert(noise.modulated_noise(seed, 8.0, style)))
            envelope = envelope.reshape(-1, 160).mean(axis=1)  # 100 Hz
            frequency, power = welch(envelope, 100, nperseg=400)
            # The wander shifts the rate by up to a fifth, and 0.25 Hz is the resolution.
            low, high = 0.8 * style.modulation[0] - 0.25, 1.2 * style.modulation[1] + 0.25
            assert low <= frequency[1:][np.argmax(power[1:])] <= high


def test_training_and_test_styles_do_not_touch() -> None:
    for name in ("slope", "resonances", "modulation", "sharpness", "hum", "clicks", "click_hz", "root"):
        (a, b), (c, d) = getattr(TRAIN, name), getattr(TEST, name)
        assert a <= b < c <= d, name
    assert TEST.tempo[1] < TRAIN.tempo[0]
    assert TRAIN.regular != TEST.regular
    assert not set(TRAIN.timbres) & set(TEST.timbres)


def test_music_is_tonal() -> None:
    """Most of its power stands in narrow lines, which noise has not."""

    def in_lines(wave: np.ndarray) -> float:
        _, power = welch(wave, noise.SAMPLE_RATE, nperseg=8192)
        peaks, _ = find_peaks(power, height=power.max() / 100)
        lines = np.unique(np.concatenate([peaks - 1, peaks, peaks + 1]))
        return float(power[lines[lines < len(power)]].sum() / power.sum()) if len(lines) < 400 else 0.0

    for style in (TRAIN, TEST):
        assert in_lines(music.make_music(1, 6.0, style)) > 0.5
    assert in_lines(coloured(1, 6.0, 0.0)) < 0.5
