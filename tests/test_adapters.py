import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline import Enhancer
from pipeline.adapters import PyannoteEnhanced, SpeechBrainEnhanced
from pipeline.encoders.encoder import Encoder
from pipeline.errors import VectorError
from pipeline.training.api import train
from tests.conftest import voice
from tests.references import reference

WAVES = torch.from_numpy(np.stack([voice(100 + 25 * seed, 1.0, seed) for seed in range(3)]))


def enhancer_of(vectors: np.ndarray) -> Enhancer:
    """Trained a little on speakers about some real vectors [B, D]."""
    rng = np.random.default_rng(0)
    spread = vectors.std() * rng.standard_normal((40, 1, 2, vectors.shape[1])).astype(np.float32)
    values = vectors.mean(axis=0) + spread + 0.3 * spread[:, :, ::-1]
    settings = {"max_epochs": 1, "batch_size": 64, "folds": 0, "strength": 0.5, "device": "cpu"}
    return Enhancer(train(values[:, 0, 0].copy(), values[:, 0, 1:].copy(), settings=settings).model)


class Embedding:
    """GE2E with the interface of `PretrainedSpeakerEmbedding`."""

    metric = "cosine"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.dimension = encoder, encoder.dim
        self.sample_rate, self.min_num_samples = encoder.sample_rate, encoder.min_samples
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Embedding":
        self.device = device
        return self

    def __call__(self, waveforms: Tensor, masks: Tensor | None = None) -> np.ndarray:
        waves = list(waveforms[:, 0])
        if masks is not None:
            heard = torch.nn.functional.interpolate(masks[:, None], size=waveforms.shape[2], mode="nearest")[:, 0] > 0.5
            waves = [wave[mask] for wave, mask in zip(waves, heard, strict=True)]
        long = [len(wave) >= self.min_num_samples for wave in waves]
        out = np.full((len(waves), self.dimension), np.nan, np.float32)
        if any(long):
            out[long] = self.encoder([wave for wave, enough in zip(waves, long, strict=True) if enough]).numpy()
        return out


def test_pyannotes_embeddings_are_enhanced_and_nan_stays(ge2e: Encoder) -> None:
    embedding, waves = Embedding(ge2e), WAVES[:, None]
    raw = embedding(waves)
    enhancer = enhancer_of(raw)
    ours = PyannoteEnhanced(embedding, enhancer)
    np.testing.assert_array_equal(ours(waves), enhancer.enhance(raw))
    assert not np.allclose(ours(waves), raw, atol=1e-3)
    masks = torch.ones(3, 50)
    masks[1], masks[2, 30:] = 0, 0
    masked = ours(waveforms=waves, masks=masks)
    np.testing.assert_array_equal(np.isnan(masked).all(axis=1), [False, True, False])
    np.testing.assert_allclose(masked[[0, 2]], enhancer.enhance(embedding(waves, masks)[[0, 2]]), atol=1e-6)
    assert np.isnan(ours(waves, torch.zeros(3, 50))).all()
    np.testing.assert_array_equal(PyannoteEnhanced(embedding, enhancer, 0.0)(waves), raw)
    assert ours.to(torch.device("meta")) is ours
    assert embedding.device == torch.device("meta")
    told = (ours.sample_rate, ours.dimension, ours.metric, ours.min_num_samples)
    assert told == (16_000, 256, "cosine", ge2e.min_samples)


def test_an_embedding_of_another_dimension_is_refused(ge2e: Encoder) -> None:
    other = enhancer_of(np.random.default_rng(0).standard_normal((5, 32)))
    with pytest.raises(VectorError, match="vectors of 256 numbers, but the model takes 32"):
        PyannoteEnhanced(Embedding(ge2e), other)


@pytest.fixture(scope="module")
def classifier() -> Any:
    """SpeechBrain's own, with a small ECAPA-TDNN whose weights are random."""
    hyperpyyaml = types.ModuleType("hyperpyyaml")
    hyperpyyaml.load_hyperpyyaml = None  # type: ignore[attr-defined]
    sys.modules.setdefault("hyperpyyaml", hyperpyyaml)  # imported for files that we do not read
    kind = reference("speechbrain.inference.classifiers").EncoderClassifier
    normalisation = reference("speechbrain.processing.features").InputNormalization
    torch.manual_seed(0)
    network = reference("speechbrain.lobes.models.ECAPA_TDNN").ECAPA_TDNN(
        80, channels=[16] * 4 + [48], kernel_sizes=[5, 3, 3, 3, 1], attention_channels=8, se_channels=8, lin_neurons=24
    )
    modules = {
        "compute_features": reference("speechbrain.lobes.features").Fbank(n_mels=80),
        "mean_var_norm": normalisation(norm_type="sentence", std_norm=False),
        "embedding_model": network,
        "classifier": torch.nn.Identity(),
    }
    return kind(modules, {"label_encoder": None}, {"device": "cpu"})


def test_speechbrains_embeddings_are_enhanced(classifier: Any) -> None:
    raw = classifier.encode_batch(WAVES)
    enhancer = enhancer_of(raw[:, 0].numpy())
    ours = SpeechBrainEnhanced(classifier, enhancer)
    out = ours.encode_batch(WAVES)
    assert out.shape == raw.shape == (3, 1, 24)
    assert torch.equal(out, enhancer.enhance(raw))
    assert not torch.allclose(out, raw, atol=1e-3)
    lengths = torch.tensor([1.0, 0.5, 0.8])
    assert torch.equal(
        ours.encode_batch(WAVES, wav_lens=lengths), enhancer.enhance(classifier.encode_batch(WAVES, lengths))
    )
    assert ours.encode_batch(WAVES[0]).shape == (1, 1, 24)  # one wave without a batch
    assert ours.device == "cpu"  # all else is the classifier's
    with pytest.raises(VectorError, match="vectors of 24 numbers, but the model takes 32"):
        SpeechBrainEnhanced(classifier, enhancer_of(np.eye(32))).encode_batch(WAVES)


def test_pyannotes_own_class_is_enhanced() -> None:
    """With the real package, and its ResNet34 with random weights."""
    own = pytest.importorskip("pyannote.audio.pipelines.speaker_verification", exc_type=ImportError)
    network = pytest.importorskip("pyannote.audio.models.embedding", exc_type=ImportError).WeSpeakerResNet34
    torch.manual_seed(0)
    embedding, waves = own.PyannoteAudioPretrainedSpeakerEmbedding(network().eval()), WAVES[:, None]
    raw = embedding(waves)
    enhancer = enhancer_of(raw)
    ours = PyannoteEnhanced(embedding, enhancer)
    np.testing.assert_array_equal(ours(waves), enhancer.enhance(raw))
    assert not np.allclose(ours(waves), raw, rtol=1e-3)
    masks = torch.ones(3, 99)
    masks[1, 50:] = 0
    np.testing.assert_array_equal(ours(waves, masks=masks), enhancer.enhance(embedding(waves, masks=masks)))
    assert ours.to(torch.device("cpu")) is ours
    told = (ours.sample_rate, ours.dimension, ours.metric, ours.min_num_samples)
    assert told == (16_000, 256, "cosine", embedding.min_num_samples)
