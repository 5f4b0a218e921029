"""Sounds that are added at an SNR: noise, music, babble."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from pipeline.audio.augment.corruption import Applied, Corruption, Range, SpeechInfo, draw_between, pick, within
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.reading import Waveform, random_start
from pipeline.errors import CorpusError

TALKERS = (3, 7)
"""Fewest and most voices in babble, as in the usual MUSAN recipes."""

FLOOR = 1e-12
"""The mean power of an inaudible signal; a silent crop is not divided by zero."""


class Additive(Corruption):
    """A sound added to the speech, at an SNR drawn evenly from `snr` = [lowest, highest] dB."""

    # Beyond these limits, nothing would be left of one of the two signals.
    snr: Annotated[Range, within(-60.0, 100.0, "SNR in dB")]
    floor: float | None = Field(None, gt=0, le=1)
    """A power added to those of speech and noise before their ratio is taken; voxceleb_trainer and code that follows it
    add 1e-4. Noise below it becomes milder than `snr` says, speech below it noisier. None adds nothing."""

    units: ClassVar = {"snr": " dB SNR"}

    @classmethod
    def settings_at(cls, number: int) -> dict[str, Any]:
        return {"snr": [number, number]}

    def draw(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> Applied:
        chosen = self.draw_sources(speech, pool, rng)
        starts = [random_start(pool.length(source), speech.samples, rng) for source in chosen]
        placed = [{"path": source.name, "start": start} for source, start in zip(chosen, starts, strict=True)]
        applied = {"sources": placed, "snr": draw_between(self.snr, rng)}
        return applied if self.floor is None else applied | {"floor": self.floor}

    def draw_sources(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> list[Source]:
        """Draw the files to add."""
        return [pick(pool.sources[self.source or ""], rng)]

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        crops = [pool.crop(pool.find(each["path"]), each["start"], len(wave)) for each in applied["sources"]]
        return add_at_snr(wave, cls.mix(crops), applied["snr"], applied.get("floor", 0.0))

    @staticmethod
    def mix(crops: Sequence[Waveform]) -> Waveform:
        """Return the sound to add, from the crops [S] of its files."""
        return crops[0]


class Noise(Additive):
    """Noise: one file."""

    kind: Literal["noise"] = "noise"
    source = "noise"
    spelling = "noise<dB>"


class Music(Additive):
    """Music: one file."""

    kind: Literal["music"] = "music"
    source = "music"
    spelling = "music<dB>"


def _check_talkers(values: list[int]) -> list[int]:
    if not 1 <= values[0] <= values[1]:
        raise ValueError("must be [fewest, most] talkers, at least 1")
    return values


class Babble(Additive):
    """Babble: several talkers at the same power, one file each; never the speaker of the utterance."""

    kind: Literal["babble"] = "babble"
    talkers: Annotated[list[int], Field(min_length=2, max_length=2), AfterValidator(_check_talkers)] | None = None
    """The fewest and the most; None: `TALKERS`."""

    source = "babble"
    spelling = "babble<dB>"

    def draw_sources(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> list[Source]:
        groups = pool.talkers(speech.speaker, speech.path)
        if not groups:
            raise CorpusError(
                "babble needs talkers other than the utterance's own speaker; add some to the babble list"
            )
        fewest, most = self.talkers or TALKERS
        count = min(int(rng.integers(fewest, most + 1)), len(groups))
        return [pick(groups[int(index)], rng) for index in rng.choice(len(groups), size=count, replace=False)]

    @staticmethod
    def mix(crops: Sequence[Waveform]) -> Waveform:
        scaled = [crop / np.sqrt(max(power(crop), FLOOR)) for crop in crops]
        return np.sum(scaled, axis=0).astype(np.float32)  # type: ignore[no-any-return]


def power(wave: Waveform) -> float:
    """Return the mean square of a wave [S]."""
    return float(np.mean(np.square(wave, dtype=np.float64)))


def add_at_snr(speech: Waveform, noise: Waveform, snr: float, floor: float = 0.0) -> Waveform:
    """Add noise [S] to speech [S] so that 10 log10(P_speech / P_noise) is `snr` dB over the whole length.

    `floor` is added to both powers in the computation of the gain.
    """
    gain = np.sqrt((power(speech) + floor) / max(power(noise) + floor, FLOOR) / 10 ** (snr / 10))
    return (speech + np.float32(gain) * noise).astype(np.float32)
