"""A quick check of an encoder: how well it separates speakers, and its speed."""

from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from pipeline.encoders.encoder import Encoder

MIN_DIFFERENCE = 0.1
"""Smallest significant difference between the cosines of a same-speaker and a different-speaker pair."""
_TIMED = 0.5  # minimum seconds of the speed measurement


@dataclass(frozen=True)
class EncoderCheck:
    """Result of checking an encoder."""

    same: float
    """Cosine between two utterances of one speaker."""
    different: float
    """Mean cosine between utterances of two speakers."""
    real_time_factor: float
    """Seconds of computation per second of audio."""

    @property
    def plausible(self) -> bool:
        """True if utterances of one speaker are closer than those of two, which a wrong front-end prevents."""
        return self.same - self.different > MIN_DIFFERENCE


def check_encoder(encoder: Encoder, first: Tensor, again: Tensor, other: Tensor) -> EncoderCheck:
    """Check an encoder with three utterances [S_i] at its sample rate: two of one speaker and one of another."""
    vectors = torch.nn.functional.normalize(torch.stack([encoder([wave])[0] for wave in (first, again, other)]), dim=1)
    cosines = vectors @ vectors.T
    runs, started = 0, perf_counter()
    while runs == 0 or perf_counter() - started < _TIMED:
        encoder([first])
        runs += 1
    factor = (perf_counter() - started) / runs / (len(first) / encoder.sample_rate)
    return EncoderCheck(float(cosines[0, 1]), float((cosines[0, 2] + cosines[1, 2]) / 2), factor)
