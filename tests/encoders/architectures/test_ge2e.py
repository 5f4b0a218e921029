import numpy as np
import pytest
import torch

from pipeline.encoders.architectures.ge2e import GE2E, raise_volume, window_starts
from pipeline.encoders.encoder import Encoder
from tests.conftest import voice
from tests.encoders.mel import mel_filters, mel_spectrogram


def reference_mel(wave: np.ndarray) -> np.ndarray:
    return mel_spectrogram(wave, mel_filters(400, 40, 0, 8000, htk=False)).T


@pytest.mark.parametrize("length", [200, 16_000, 32_240, 40_001])
def test_mel_features_are_slaneys(length: int) -> None:
    waves = np.stack([voice(140, 3, 0)[:length], np.random.default_rng(0).uniform(-1, 1, length).astype(np.float32)])
    ours = GE2E().front_end(torch.from_numpy(waves)).transpose(1, 2).numpy()
    for wave, mel in zip(waves, ours, strict=True):
        reference = reference_mel(wave)
        assert mel.shape == reference.shape
        np.testing.assert_allclose(mel, reference, rtol=1e-4, atol=1e-4 * reference.max())


def reference_embedding(model: GE2E, wave: np.ndarray) -> np.ndarray:
    """One utterance the way resemblyzer lays it out: mel features, window by window."""
    rms = np.sqrt(np.mean((wave * 32_767) ** 2))
    gain = -30 - 20 * np.log10(rms / 32_767)
    wave = wave * 10 ** (max(gain, 0) / 20)
    step, frames = round(16_000 / 1.3 / 160), int(np.ceil((len(wave) + 1) / 160))
    slices = [(i, i + 160) for i in range(0, max(1, frames - 160 + step + 1), step)]
    if (len(wave) - slices[-1][0] * 160) / (160 * 160) < 0.75 and len(slices) > 1:
        slices = slices[:-1]
    if slices[-1][1] * 160 >= len(wave):
        wave = np.pad(wave, (0, slices[-1][1] * 160 - len(wave)))
    mel = reference_mel(wave)
    parts = []
    with torch.no_grad():
        for start, stop in slices:
            _, (hidden, _) = model.lstm(torch.from_numpy(mel[None, start:stop].astype(np.float32)))
            raw = torch.relu(model.linear(hidden[-1]))[0].numpy()
            parts.append(raw / np.linalg.norm(raw))
    mean = np.mean(parts, axis=0)
    return mean / np.linalg.norm(mean)


def test_a_batch_of_any_lengths_gives_what_the_reference_gives_one_by_one(ge2e: Encoder) -> None:
    assert isinstance(ge2e.network, GE2E)
    waves = [
        scale * voice(pitch, seconds, 1)
        for pitch, seconds, scale in ((110, 0.4, 0.02), (150, 2.015, 1), (230, 4.3, 0.1))
    ]
    ours = ge2e([torch.from_numpy(wave.astype(np.float32)) for wave in waves]).numpy()
    assert ours.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    for wave, embedding in zip(waves, ours, strict=True):
        np.testing.assert_allclose(embedding, reference_embedding(ge2e.network, wave.astype(np.float32)), atol=1e-4)


def test_windows_cover_the_wave_as_in_the_reference() -> None:
    assert window_starts(100) == [0]
    assert window_starts(32_240) == [0, 77]
    for length in range(20_000, 90_000, 777):
        starts = window_starts(length)
        assert starts[0] == 0
        assert set(np.diff(starts)) <= {77}
        assert length - (starts[-1] + 160) * 160 < 77 * 160  # no more than a step is left uncovered


def test_volume_is_raised_to_minus_30_db_and_never_lowered() -> None:
    quiet, loud, silent = raise_volume(torch.tensor([[1e-3] * 100, [0.5] * 100, [0.0] * 100]))
    assert 20 * quiet.square().mean().sqrt().log10() == pytest.approx(-30, abs=1e-3)
    assert torch.equal(loud, torch.full((100,), 0.5))
    assert torch.equal(silent, torch.zeros(100))
