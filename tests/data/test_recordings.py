import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from pipeline.data.manifest import Utterance
from pipeline.data.recordings import CLIPPED, NARROW, check_recordings, measure_bandwidth, measure_clipping
from tests.conftest import voice


def hissing(seconds: float = 3.0, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    """A voice whose every fourth tenth of a second is a hiss 30 dB weaker, as in speech."""
    wave = voice(130, seconds, seed, rate)
    hiss = np.random.default_rng(seed).standard_normal(len(wave)) * 10 ** (-30 / 20) * np.abs(wave).max()
    on = (np.arange(len(wave)) // (rate // 10)) % 4 == 0
    return (np.where(on, hiss, wave)).astype(np.float32)


def upsampled(wave: np.ndarray, low: int, rate: int = 16_000) -> np.ndarray:
    return soxr.resample(soxr.resample(wave, rate, low), low, rate)


def sixteen_bits(wave: np.ndarray) -> np.ndarray:
    return (np.round(wave * 32_767) / 32_768).astype(np.float32)


@pytest.mark.parametrize("level", [1.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_upsampled_speech_is_told_from_wide_band_speech(seed: int, level: float) -> None:
    wave = hissing(seed=seed)
    assert measure_bandwidth(sixteen_bits(level * wave), 16_000) > 7_500
    for low in (8_000, 11_025, 12_000):
        found = measure_bandwidth(sixteen_bits(level * upsampled(wave, low)), 16_000)
        assert low / 2 - 500 <= found < NARROW if low < 12_000 else found <= NARROW


def test_rates_other_than_16_khz_are_judged_up_to_8_khz() -> None:
    assert measure_bandwidth(hissing(rate=8_000), 8_000) == 4_000
    assert measure_bandwidth(hissing(rate=48_000), 48_000) == 8_000
    assert measure_bandwidth(hissing(rate=192_000), 192_000) == 8_000
    assert measure_bandwidth(upsampled(hissing(rate=48_000), 8_000, 48_000), 48_000) < NARROW


@pytest.mark.parametrize("length", [1, 100, 511, 16_000])
def test_short_and_silent_waves_have_a_bandwidth(length: int) -> None:
    assert measure_bandwidth(np.zeros(length, dtype=np.float32), 16_000) == 0
    assert 0 < measure_bandwidth(np.random.default_rng(0).standard_normal(length).astype(np.float32), 16_000) <= 8_000


def test_clipping_is_flat_runs_at_full_scale_and_not_loudness() -> None:
    time = np.arange(16_000) / 16_000
    for hertz in (100, 440, 1_000):
        sine = np.sin(2 * np.pi * hertz * time)
        assert measure_clipping(sixteen_bits(sine)[:, None]) == 0
        assert measure_clipping(sixteen_bits(np.clip(1.5 * sine, -1, 1))[:, None]) > CLIPPED
    # Two thirds of full scale are exceeded for 2 acos(2/3) / pi of the time.
    clipped = np.clip(1.5 * np.sin(2 * np.pi * 100 * time), -1, 1).astype(np.float32)
    assert measure_clipping(clipped[:, None]) == pytest.approx(2 * np.arccos(1 / 1.5) / np.pi, abs=0.02)
    one_side = np.stack([clipped, 0 * clipped], axis=1)
    assert measure_clipping(one_side) == pytest.approx(measure_clipping(clipped[:, None]) / 2)
    assert measure_clipping(clipped[:2, None]) == 0


def test_a_sample_of_a_manifest_is_heard(tmp_path: Path) -> None:
    wave = hissing()
    files = {
        "good.wav": wave,
        "narrow.wav": upsampled(wave, 8_000),
        "clipped.wav": np.clip(20 * wave, -1, 1),
    }
    for name, samples in files.items():
        soundfile.write(tmp_path / name, samples, 16_000)
    rows = [Utterance(name, name) for name in (*files, "gone.wav")]
    found = check_recordings(rows, tmp_path, 50, 0)
    assert (found.files, found.unreadable) == (3, 1)
    assert (found.clipped_names, found.upsampled_names) == (("clipped.wav",), ("narrow.wav",))
    some = [check_recordings(rows, tmp_path, 2, seed) for seed in range(8)]
    assert all(each.files + each.unreadable == 2 for each in some)
    assert len(set(some)) > 1
    assert check_recordings(rows, tmp_path, 2, 3) == some[3]


def test_levels_that_cannot_be_are_counted_and_are_no_clipping(tmp_path: Path) -> None:
    wave = np.clip(20 * hissing(), -1, 1)
    for name, scale in (("clipped.wav", 1), ("loud.wav", 32_768)):
        soundfile.write(tmp_path / name, wave * np.float32(scale), 16_000, subtype="FLOAT")
    found = check_recordings([Utterance(name, name) for name in ("clipped.wav", "loud.wav")], tmp_path, 50, 0)
    assert (found.files, found.loud, found.loud_names, found.clipped_names) == (2, 1, ("loud.wav",), ("clipped.wav",))


@pytest.mark.corpora
def test_real_speech_is_wide_band_and_the_same_speech_upsampled_is_not(real_corpora: Path) -> None:
    files = sorted(
        path for path in (real_corpora / "speechocean762/test").rglob("*") if path.suffix in (".wav", ".flac")
    )
    assert files
    chosen = np.random.default_rng(0).permutation(len(files))[:60]
    wide = 0
    for path in (files[index] for index in chosen):
        wave, rate = soundfile.read(path, dtype="float32")
        wide += measure_bandwidth(wave, rate) >= NARROW
        assert measure_bandwidth(sixteen_bits(upsampled(wave, 8_000, rate)), rate) <= 4_250, os.fspath(path)
        assert measure_clipping(wave[:, None]) <= CLIPPED, os.fspath(path)
    assert wide >= 58  # some telephones do cut off the top
