import kaldi_native_fbank
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
from tests.encoders.mel import mel_filters, mel_spectrogram

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


def digest(values: NDArray[np.float64]) -> float:
    """Sum up an array so that any other values, in any other order, give another sum."""
    return float(np.sum(values * np.cos(np.arange(values.size).reshape(values.shape))))


@pytest.mark.parametrize(
    ("fft", "mels", "low", "high", "slaney", "htk"),
    [
        (400, 40, 0, 8000, -0.010444704124575953, -0.5859641159877016),
        (512, 64, 0, 8000, -0.024416349311586313, -1.5726039660892293),
        (512, 80, 20, 7600, -0.06016675361810399, -3.6333269632898286),
    ],
)
def test_the_definition_of_filters_is_that_of_librosa(
    fft: int, mels: int, low: float, high: float, slaney: float, htk: float
) -> None:
    """The figures are digests of arrays by librosa 0.11.0, with norm "slaney" for Slaney's scale and None for HTK's.

    librosa.filters.mel(sr=16000, n_fft=…, n_mels=…, fmin=…, fmax=…, htk=…, norm=…, dtype=np.float64)
    """
    assert digest(mel_filters(fft, mels, low, high, htk=False)) == pytest.approx(slaney, abs=1e-12)
    assert digest(mel_filters(fft, mels, low, high, htk=True)) == pytest.approx(htk, abs=1e-12)


@pytest.mark.parametrize(
    ("window", "length", "pad_mode", "expected"),
    [("hann", None, "constant", 14563.682689521165), ("hamming", 400, "reflect", 18245.773708549877)],
)
def test_the_definition_of_spectrograms_is_that_of_librosa(
    window: str, length: int | None, pad_mode: str, expected: float
) -> None:
    """The figures are digests of arrays by librosa 0.11.0.

    librosa.feature.melspectrogram(y=…, sr=16000, n_fft=512, win_length=…, hop_length=160, window=…, pad_mode=…,
                                   n_mels=64, fmin=20, fmax=7600, htk=True, norm=None, dtype=np.float64)
    """
    wave = np.sin(np.arange(4001) ** 1.5 / 100)
    mel = mel_spectrogram(wave, mel_filters(512, 64, 20, 7600, htk=True), window, length, pad_mode)
    assert digest(mel) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("fft", "mels", "low", "high"), [(400, 40, 0, 8000), (512, 64, 0, 8000), (512, 80, 20, 7600)])
def test_filterbanks_are_as_defined(fft: int, mels: int, low: float, high: float) -> None:
    for filterbank, htk in ((slaney_filterbank, False), (htk_filterbank, True)):
        expected = mel_filters(fft, mels, low, high, htk)
        np.testing.assert_allclose(filterbank(fft, mels, low, high), expected, atol=1e-8)


@pytest.mark.parametrize("window", ["hann", "hamming"])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_mel_spectrogram_is_as_defined(window: str, pad_mode: str) -> None:
    ours = MelSpectrogram(512, 400, 160, 64, 20, 7600, window=window, pad_mode=pad_mode)  # type: ignore[arg-type]
    assert set(ours.state_dict()) == {"spectrogram.window", "mel_scale.fb"}
    wave = WAVES["voice"]
    reference = mel_spectrogram(wave, mel_filters(512, 64, 20, 7600, htk=True), window, 400, pad_mode)
    (mel,) = ours(torch.from_numpy(wave)[None]).numpy()
    np.testing.assert_allclose(mel, reference, rtol=1e-4, atol=1e-5 * reference.max())


def test_pre_emphasis_reflects_at_the_start() -> None:
    wave = torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]])
    expected = torch.tensor([[1 - 0.97 * 2, 2 - 0.97, 4 - 0.97 * 2], [-0.97, 1.0, -0.97]])
    torch.testing.assert_close(PreEmphasis()(wave), expected)
