"""Clipping."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from pipeline.audio.augment.corruption import Applied, Corruption, Range, SpeechInfo, draw_between, within
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import Waveform


class Clip(Corruption):
    """Cut off the loudest `percent` % of the samples, as an overdriven input does; digital silence does not count."""

    kind: Literal["clip"] = "clip"
    percent: Annotated[Range, within(0.0, 50.0, "% of the samples")]

    spelling = "clip<%>"
    units: ClassVar = {"percent": " % of the samples"}

    @classmethod
    def settings_at(cls, number: int) -> dict[str, Any]:
        return {"percent": [number, number]}

    def draw(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> Applied:
        return {"percent": draw_between(self.percent, rng)}

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        loudness = np.abs(wave[wave != 0])
        if len(loudness) == 0:
            return wave
        limit = np.float32(np.quantile(loudness, 1 - applied["percent"] / 100))
        return np.clip(wave, -limit, limit)
