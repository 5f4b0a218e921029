"""A quick look at an encoder: does it tell speakers apart, and how fast is it."""

from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from pipeline.encoders.encoder import Encoder

MIN_DIFFERENCE = 0.1
"""Least difference of cosines between a same-speaker and a different-speaker pair that is more than luck."""
_TIMED = 0.5  # seconds to measure speed for, at least


@dataclass(frozen=True)
class EncoderCheck:
    """What was found out about an encoder."""

    same: float
    """Cosine of two utterances of one speaker."""
    different: float
    """Cosine of utterances of two speakers."""
    real_time_factor: float
    """Seconds of computing for a second of audio."""

    @property
    def plausible(self) -> bool:
        """Whether one speaker's utterances are closer than two speakers', as a wrong front-end would not have it."""
        return self.same - self.different > MIN_DIFFERENCE


def check_encoder(encoder: Encoder, first: Tensor, again: Tensor, other: Tensor) -> EncoderCheck:
    """Encode three utterances [S_i] at the encoder's rate: two of one speaker and one of another."""
    vectors = torch.nn.functional.normalize(torch.stack([encoder([wave])[0] for wave in (first, again, other)]), dim=1)
    cosines = vectors @ vectors.T
    runs, started = 0, perf_counter()
    while runs == 0 or perf_counter() - started < _TIMED:
        encoder([first])
        runs += 1
    factor = (perf_counter() - started) / runs / (len(first) / encoder.sample_rate)
    return EncoderCheck(float(cosines[0, 1]), float((cosines[0, 2] + cosines[1, 2]) / 2), factor)
