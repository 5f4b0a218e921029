import kaldi_native_fbank
import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.encoders.features import (
    KaldiFbank,
    MelSpectrogram,
    PreEmphasis,
    htk_filterbank,
    slaney_filterbank,
)
from tests.conftest import voice

RNG = np.random.default_rng(0)
WAVES = {
    "voice": voice(140, 2.015, 0),
    "noise": RNG.uniform(-1, 1, 16_000).astype(np.float32),
    "quiet": 1e-4 * voice(90, 1.0, 1),
    "one frame": voice(90, 1.0, 2)[:400],
}


def kaldi(wave: NDArray[np.float32], window: str, scale: float, mels: int) -> NDArray[np.float32]:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = mels
    options.mel_opts.high_freq = 0
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16_000, (wave * scale).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


@pytest.mark.parametrize("wave", WAVES.values(), ids=WAVES)
@pytest.mark.parametrize(
    ("window", "scale", "mels"), [("povey", 1.0, 80), ("hamming", 32_768.0, 80), ("povey", 1.0, 40)]
)
def test_kaldi_fbank_is_kaldis(wave: NDArray[np.float32], window: str, scale: float, mels: int) -> None:
    reference = kaldi(wave, window, scale, mels)
    batch = torch.from_numpy(wave).repeat(2, 1)
    (ours, again) = KaldiFbank(mels, window=window, scale=scale, remove_mean=False)(batch).numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(ours, reference, atol=2e-3)
    np.testing.assert_array_equal(ours, again)
    (centred,) = KaldiFbank(mels, window=window, scale=scale)(batch[:1]).numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(centred, reference - reference.mean(axis=0), atol=2e-3)


@pytest.mark.parametrize(("fft", "mels", "low", "high"), [(400, 40, 0, 8000), (512, 64, 0, 8000), (512, 80, 20, 7600)])
def test_filterbanks_are_librosas(fft: int, mels: int, low: float, high: float) -> None:
    options = {"sr": 16_000, "n_fft": fft, "n_mels": mels, "fmin": low, "fmax": high, "dtype": np.float64}
    np.testing.assert_allclose(slaney_filterbank(fft, mels, low, high), librosa.filters.mel(**options), atol=1e-8)
    htk = librosa.filters.mel(**options, htk=True, norm=None)
    np.testing.assert_allclose(htk_filterbank(fft, mels, low, high), htk, atol=1e-8)


@pytest.mark.parametrize("window", ["hann", "hamming"])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_mel_spectrogram_is_librosas(window: str, pad_mode: str) -> None:
    ours = MelSpectrogram(512, 400, 160, 64, 20, 7600, window=window, pad_mode=pad_mode)  # type: ignore[arg-type]
    assert set(ours.state_dict()) == {"spectrogram.window", "mel_scale.fb"}
    wave = WAVES["voice"]
    reference = librosa.feature.melspectrogram(
        y=wave, sr=16_000, n_fft=512, win_length=400, hop_length=160, window=window, pad_mode=pad_mode,
        n_mels=64, fmin=20, fmax=7600, htk=True, norm=None,
    )  # fmt: skip
    (mel,) = ours(torch.from_numpy(wave)[None]).numpy()
    np.testing.assert_allclose(mel, reference, rtol=1e-4, atol=1e-5 * reference.max())


def test_pre_emphasis_reflects_at_the_start() -> None:
    wave = torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]])
    expected = torch.tensor([[1 - 0.97 * 2, 2 - 0.97, 4 - 0.97 * 2], [-0.97, 1.0, -0.97]])
    torch.testing.assert_close(PreEmphasis()(wave), expected)
