"""Wrap encoders of other toolkits so that their embeddings are enhanced.

The toolkits are not imported; any object with the same methods can be wrapped.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import VectorError
from pipeline.model.enhancer import Enhancer


class BatchEncoder(Protocol):
    """The part of `speechbrain.inference.EncoderClassifier` that is used."""

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None, normalize: bool = False) -> Tensor:
        """Return embeddings [B, 1, D] of waves [B, S], or of a single wave [S]."""
        ...


class SpeakerEmbedding(Protocol):
    """The part of pyannote.audio's `PretrainedSpeakerEmbedding` that is used."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        ...

    @property
    def dimension(self) -> int:
        """Dimension of an embedding, D."""
        ...

    @property
    def metric(self) -> str:
        """Metric for comparing embeddings."""
        ...

    @property
    def min_num_samples(self) -> int:
        """Minimum number of samples for an embedding."""
        ...

    def __call__(self, waveforms: Tensor, masks: Tensor | None = None) -> NDArray[np.floating[Any]]:
        """Return embeddings [B, D] of waves [B, 1, S]; NaN if a mask [B, frames] leaves too little of a wave."""
        ...


class SpeechBrainEnhanced:
    """A SpeechBrain `EncoderClassifier` whose embeddings are enhanced; all other attributes are unchanged.

    Methods that build on `encode_batch`, such as `classify_batch`, still use raw embeddings.
    """

    def __init__(self, classifier: BatchEncoder, enhancer: Enhancer, strength: float | None = None) -> None:
        """Args: enhancer: enhancer for the classifier's embeddings; strength: 0 to 1, the enhancer's if None."""
        self.classifier, self.enhancer, self.strength = classifier, enhancer, strength

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None, normalize: bool = False) -> Tensor:
        """Return enhanced embeddings [B, 1, D] of waves [B, S], or of a single wave [S].

        Args:
            wavs: waves at the encoder's sample rate.
            wav_lens: length of each wave without padding, as a fraction of the longest [B].
            normalize: let the encoder normalise its embeddings; it must match the model's training.

        Raises:
            VectorError: the embeddings do not have the model's dimension, or hold NaN.
        """
        raw = self.classifier.encode_batch(wavs, wav_lens, normalize)
        _check_dim(raw.shape[-1], self.enhancer)
        return self.enhancer.enhance(raw, self.strength)

    def __getattr__(self, name: str) -> Any:
        if name == "classifier":  # during unpickling
            raise AttributeError(name)
        return getattr(self.classifier, name)


class PyannoteEnhanced:
    """A drop-in replacement for a speaker embedding of pyannote.audio that enhances its vectors."""

    def __init__(self, embedding: SpeakerEmbedding, enhancer: Enhancer, strength: float | None = None) -> None:
        """Wrap an embedding.

        Args:
            embedding: the result of `PretrainedSpeakerEmbedding(…)`.
            enhancer: enhancer for its vectors.
            strength: the interpolation weight, 0 (raw) to 1 (enhanced); the enhancer's own if not given.

        Raises:
            VectorError: the embedding does not have the model's dimension.
        """
        _check_dim(embedding.dimension, enhancer)
        self.embedding, self.enhancer, self.strength = embedding, enhancer, strength

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.embedding.sample_rate

    @property
    def dimension(self) -> int:
        """Dimension of a vector, D."""
        return self.enhancer.dim

    @property
    def metric(self) -> str:
        """Metric for comparing vectors, that of the embedding."""
        return self.embedding.metric

    @property
    def min_num_samples(self) -> int:
        """Minimum number of samples for a vector."""
        return self.embedding.min_num_samples

    def to(self, device: torch.device) -> "PyannoteEnhanced":
        """Move the embedding to a device; the enhancer stays on its own."""
        self.embedding.to(device)  # type: ignore[attr-defined]
        return self

    def __call__(self, waveforms: Tensor, masks: Tensor | None = None) -> NDArray[np.floating[Any]]:
        """Return enhanced vectors [B, D] of waves [B, 1, S]; NaN vectors of the embedding stay NaN.

        Args:
            waveforms: waves at `sample_rate`.
            masks: weights of the frames of each wave [B, frames], 0 to 1; 1 if None.

        Raises:
            VectorError: the vectors do not have the model's dimension.
        """
        raw = self.embedding(waveforms) if masks is None else self.embedding(waveforms, masks=masks)
        _check_dim(raw.shape[-1], self.enhancer)
        return self.enhancer.enhance(raw, self.strength, on_bad="raw")


def _check_dim(dim: int, enhancer: Enhancer) -> None:
    if dim != enhancer.dim:
        raise VectorError(
            f"the encoder gives vectors of {dim} numbers, but {enhancer.name} takes {enhancer.dim}. Use a model"
            " trained on this encoder."
        )
