import io
import warnings

import numpy as np
import pytest
import soundfile
from scipy.signal import correlate

from pipeline.audio.augment.corruption import Corruption
from pipeline.audio.augment.corruptions.clipping import Clip
from pipeline.audio.augment.corruptions.codecs import Mp3, Opus, Vorbis
from pipeline.audio.augment.corruptions.telephone import Gsm, Phone
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import Waveform
from tests.conftest import voice

LENGTHS = (32_000, 12_345, 700, 40)


def speech(length: int = 32_000) -> Waveform:
    rng = np.random.default_rng(0)
    return (voice(130, 3, 0)[:length] + 0.003 * rng.standard_normal(length)).astype(np.float32)


def lag(made: Waveform, of: Waveform) -> int:
    """Samples by which one wave is behind another."""
    return int(np.argmax(correlate(made, of, "full"))) - (len(of) - 1)


def fidelity(made: Waveform, of: Waveform) -> float:
    """SNR in dB."""
    return float(10 * np.log10(np.mean(of**2) / np.mean((made - of) ** 2)))


def apply(kind: type[Corruption], wave: Waveform, **applied: float) -> Waveform:
    return kind.apply(wave, applied, SourcePool({}))


EVERY = {
    "phone": lambda wave: apply(Phone, wave),
    "gsm": lambda wave: apply(Gsm, wave),
    "mp3-16": lambda wave: apply(Mp3, wave, kbit=16),
    "mp3-32": lambda wave: apply(Mp3, wave, kbit=32),
    "mp3-64": lambda wave: apply(Mp3, wave, kbit=64),
    "opus-16": lambda wave: apply(Opus, wave, kbit=16),
    "vorbis-0": lambda wave: apply(Vorbis, wave, quality=0),
    "clip-10": lambda wave: apply(Clip, wave, percent=10),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("length", LENGTHS)
def test_length_time_and_bits_stay_the_same(name: str, length: int) -> None:
    wave = speech(length)
    made = EVERY[name](wave)
    assert made.dtype == np.float32
    assert made.shape == (length,)
    assert np.isfinite(made).all()
    assert not np.array_equal(made, wave)
    if length > 10_000:
        assert lag(made, wave) == 0
    np.testing.assert_array_equal(made, EVERY[name](wave.copy()))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("length", [1, 2, 100])
def test_silence_stays_silence_and_short_waves_are_no_trouble(name: str, length: int) -> None:
    assert np.abs(EVERY[name](np.zeros(length, dtype=np.float32))).max() < 1e-3


@pytest.mark.parametrize("name", ["phone", "gsm", "mp3-64", "opus-16", "vorbis-0"])
def test_speech_above_full_scale_is_not_clipped(name: str) -> None:
    loud = 16 * speech()
    assert np.abs(loud).max() > 2
    assert np.corrcoef(EVERY[name](loud), EVERY[name](loud / 16))[0, 1] > 0.98


def test_mu_law_is_that_of_g711() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop")  # Python 3.11 and 3.12 have it
    values = np.arange(0, 32_768, dtype=np.int16)
    coded = Phone.code((values / 32_768).astype(np.float32), 8_000)
    linear = audioop.ulaw2lin(audioop.lin2ulaw(values.tobytes(), 2), 2)
    np.testing.assert_array_equal(coded * 32_768, np.frombuffer(linear, dtype=np.int16))
    below = Phone.code((-values / 32_768).astype(np.float32), 8_000)
    np.testing.assert_array_equal(np.abs(below), np.abs(coded))  # it is symmetric


@pytest.mark.parametrize(
    ("frequency", "low", "high"),
    [(60, -200, -50), (300, -7, -5), (1_000, -0.1, 0.1), (3_400, -7, -5), (3_900, -200, -30), (5_000, -200, -50)],
)
def test_a_telephone_passes_its_band_alone(frequency: float, low: float, high: float) -> None:
    tone = (0.3 * np.sin(2 * np.pi * frequency * np.arange(32_000) / 16_000)).astype(np.float32)
    heard = apply(Phone, tone)[8_000:24_000].astype(np.float64)
    phase = 2 * np.pi * frequency * np.arange(8_000, 24_000) / 16_000
    level = 20 * np.log10(np.hypot(*(2 * np.mean(heard * f(phase)) for f in (np.sin, np.cos))) / 0.3 + 1e-9)
    assert low <= level <= high


@pytest.mark.parametrize("kbit", [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160])
def test_mp3_has_the_rate_asked_for(kbit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def read(file: io.BytesIO, **options: str) -> tuple[Waveform, int]:
        sizes.append(len(file.getvalue()))
        wave: Waveform = original(file, **options)[0]
        return wave, 16_000

    original = soundfile.read
    monkeypatch.setattr("soundfile.read", read)
    wave = np.tile(speech(), 8)
    made = apply(Mp3, wave, kbit=kbit)
    assert lag(made, wave) == 0
    assert sizes[0] * 8 / (len(wave) / 16_000) / 1_000 == pytest.approx(kbit, rel=0.03)


def test_more_bits_are_nearer_the_truth() -> None:
    wave = speech()
    for results in (
        [apply(Mp3, wave, kbit=kbit) for kbit in (16, 32, 64)],
        [apply(Opus, wave, kbit=kbit) for kbit in (12, 24, 64)],
        [apply(Vorbis, wave, quality=quality) for quality in (0, 5, 10)],
    ):
        figures = [fidelity(made, wave) for made in results]
        assert figures == sorted(figures)
        assert figures[-1] > figures[0] + 2


@pytest.mark.parametrize("percent", [1, 10, 50])
def test_clipping_cuts_off_the_share_of_samples_asked_for(percent: float) -> None:
    wave = np.concatenate([speech(), np.zeros(20_000, dtype=np.float32)])
    made = apply(Clip, wave, percent=percent)
    limit = np.abs(made).max()
    touched = made != wave
    assert touched.sum() == pytest.approx(percent / 100 * np.count_nonzero(wave), abs=2)
    np.testing.assert_array_equal(np.abs(made[touched]), limit)
    np.testing.assert_array_equal(np.sign(made), np.sign(wave))
    assert (np.abs(wave[touched]) > limit).all()
