"""Enhancement inside other toolkits: their encoders, wrapped so that what they give is enhanced.

Neither toolkit is imported: what is wrapped is whatever has their methods.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import VectorError
from pipeline.model.enhancer import Enhancer


class BatchEncoder(Protocol):
    """What is used of `speechbrain.inference.EncoderClassifier`."""

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None, normalize: bool = False) -> Tensor:
        """Return embeddings [B, 1, D] of waves [B, S], or of one [S]."""
        ...


class SpeakerEmbedding(Protocol):
    """What is used of pyannote.audio's `PretrainedSpeakerEmbedding`."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        ...

    @property
    def dimension(self) -> int:
        """Length of an embedding, D."""
        ...

    @property
    def metric(self) -> str:
        """By which embeddings are to be compared."""
        ...

    @property
    def min_num_samples(self) -> int:
        """Samples below which there is no embedding."""
        ...

    def __call__(self, waveforms: Tensor, masks: Tensor | None = None) -> NDArray[np.floating[Any]]:
        """Return embeddings [B, D] of waves [B, 1, S], NaN where too little of one is left by its mask [B, frames]."""
        ...


class SpeechBrainEnhanced:
    """An `EncoderClassifier` of SpeechBrain whose embeddings are enhanced; all else of it is as it was.

    What it has that is built upon `encode_batch`, such as `classify_batch`, still calls its own.
    """

    def __init__(self, classifier: BatchEncoder, enhancer: Enhancer, strength: float | None = None) -> None:
        """Args: enhancer: of the classifier's embeddings; strength: 0 to 1, that of the enhancer if None."""
        self.classifier, self.enhancer, self.strength = classifier, enhancer, strength

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None, normalize: bool = False) -> Tensor:
        """Return enhanced embeddings [B, 1, D] of waves [B, S], or of one [S].

        Args:
            wavs: at the encoder's sampling rate.
            wav_lens: how much of each is not padding, by the longest [B].
            normalize: whether the encoder normalises its embeddings; as it did for the model's training.

        Raises:
            VectorError: the embeddings are of another dimension than the model's, or hold NaN.
        """
        raw = self.classifier.encode_batch(wavs, wav_lens, normalize)
        _check(raw.shape[-1], self.enhancer)
        return self.enhancer.enhance(raw, self.strength)

    def __getattr__(self, name: str) -> Any:
        if name == "classifier":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.classifier, name)


class PyannoteEnhanced:
    """A speaker embedding of pyannote.audio whose vectors are enhanced, for use in its place."""

    def __init__(self, embedding: SpeakerEmbedding, enhancer: Enhancer, strength: float | None = None) -> None:
        """Wrap an embedding.

        Args:
            embedding: what `PretrainedSpeakerEmbedding(…)` gave.
            enhancer: of its vectors.
            strength: 0 (raw) to 1 (all of the way), by default that of the enhancer.

        Raises:
            VectorError: its vectors are of another dimension than the model's.
        """
        _check(embedding.dimension, enhancer)
        self.embedding, self.enhancer, self.strength = embedding, enhancer, strength

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.embedding.sample_rate

    @property
    def dimension(self) -> int:
        """Length of a vector, D."""
        return self.enhancer.dim

    @property
    def metric(self) -> str:
        """By which vectors are to be compared, as the embedding says."""
        return self.embedding.metric

    @property
    def min_num_samples(self) -> int:
        """Samples below which there is no vector."""
        return self.embedding.min_num_samples

    def to(self, device: torch.device) -> "PyannoteEnhanced":
        """Move the embedding; vectors are enhanced where the enhancer was loaded."""
        self.embedding.to(device)  # type: ignore[attr-defined]
        return self

    def __call__(self, waveforms: Tensor, masks: Tensor | None = None) -> NDArray[np.floating[Any]]:
        """Return enhanced vectors [B, D] of waves [B, 1, S]; where the embedding gives NaN, NaN.

        Args:
            waveforms: at `sample_rate`.
            masks: what to hear of each [B, frames], 0 to 1; all if None.

        Raises:
            VectorError: the vectors are of another dimension than the model's.
        """
        raw = self.embedding(waveforms) if masks is None else self.embedding(waveforms, masks=masks)
        _check(raw.shape[-1], self.enhancer)
        return self.enhancer.enhance(raw, self.strength, on_bad="raw")


def _check(dim: int, enhancer: Enhancer) -> None:
    if dim != enhancer.dim:
        raise VectorError(
            f"the encoder gives vectors of {dim} numbers, but {enhancer.name} takes {enhancer.dim}. Take a model that"
            " was trained on this encoder."
        )
