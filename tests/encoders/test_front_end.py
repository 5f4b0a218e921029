from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.config.encoder import Input
from pipeline.encoders.front_end import build_front_end, min_front_end_samples
from pipeline.errors import ConfigError
from tests.conftest import voice
from tests.encoders.mel import mel_filters, mel_spectrogram
from tests.encoders.test_features import kaldi

WAVES = torch.from_numpy(np.stack([voice(140, 1.3, 0), voice(90, 1.3, 1)]))


def declared(**keys: Any) -> Input:
    found: Input = TypeAdapter(Input).validate_python(keys)
    return found


def features(**keys: Any) -> np.ndarray:
    array: np.ndarray = build_front_end(declared(**keys), "x")(WAVES).numpy()
    return array


def test_waveform_is_scaled() -> None:
    np.testing.assert_array_equal(features(kind="waveform"), WAVES)
    np.testing.assert_array_equal(features(kind="waveform", scale=32_768), 32_768 * WAVES)


@pytest.mark.parametrize("layout", ["frames_mels", "mels_frames"])
def test_kaldi_fbank_is_kaldis(layout: str) -> None:
    keys = {"kind": "kaldi_fbank", "mels": 40, "window": "hamming", "scale": 32_768, "layout": layout}
    expected = np.stack([kaldi(wave, "hamming", 32_768, 40) for wave in WAVES.numpy()])
    if layout == "mels_frames":
        expected = expected.transpose(0, 2, 1)
    np.testing.assert_allclose(features(**keys, remove_mean=False), expected, atol=2e-3)
    frames = 1 if layout == "frames_mels" else 2
    np.testing.assert_allclose(features(**keys), expected - expected.mean(frames, keepdims=True), atol=2e-3)


@pytest.mark.parametrize(
    ("window", "scale", "pre_emphasis", "remove_mean", "remove_deviation", "layout"),
    [
        ("hamming", "htk", 0.0, True, False, "frames_mels"),
        ("hann", "slaney", 0.97, False, False, "frames_mels"),
        ("hamming", "htk", 0.97, True, True, "mels_frames"),
    ],
)
def test_log_mel_is_as_defined(
    window: str, scale: str, pre_emphasis: float, remove_mean: bool, remove_deviation: bool, layout: str
) -> None:
    found = features(
        kind="log_mel", mels=64, low=20, high=7600, window=window, scale=scale, pre_emphasis=pre_emphasis,
        remove_mean=remove_mean, remove_deviation=remove_deviation, layout=layout,
    )  # fmt: skip
    waves = WAVES.numpy()
    if pre_emphasis:
        before = np.concatenate([waves[:, 1:2], waves[:, :-1]], axis=1)
        waves = waves - np.float32(pre_emphasis) * before
    power = mel_spectrogram(waves, mel_filters(512, 64, 20, 7600, htk=scale == "htk"), window, 400, "reflect")
    expected = torch.from_numpy(np.log(power + 1e-6)).float()
    if remove_deviation:
        expected = torch.nn.InstanceNorm1d(64)(expected)
    elif remove_mean:
        expected = expected - expected.mean(dim=2, keepdim=True)
    if layout == "frames_mels":
        expected = expected.transpose(1, 2)
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize(
    "keys",
    [{"kind": "waveform"}, {"kind": "kaldi_fbank"}, {"kind": "log_mel", "remove_deviation": True}],
    ids=lambda keys: keys["kind"],
)
def test_the_shortest_wave_has_finite_features(keys: dict[str, Any]) -> None:
    front_end = build_front_end(declared(**keys), "x")
    assert front_end(WAVES[:, : min_front_end_samples(declared(**keys))]).isfinite().all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kind": "kaldi_fbank", "low": 4000, "high": 4000}, "low 4000 and high 4000"),
        ({"kind": "log_mel", "low": 500, "high": 400}, "low 500 and high 400"),
        ({"kind": "log_mel", "fft": 256}, "window_length 400 and fft 256"),
    ],
)
def test_contradictions_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^encoder own: .*{said}"):
        build_front_end(declared(**keys), "own")
