"""Reverberation."""

from typing import Literal

import numpy as np

from pipeline.audio.augment.corruption import Applied, Corruption, SpeechInfo, pick
from pipeline.audio.augment.corruptions.noise import FLOOR, power
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import Waveform


class Reverb(Corruption):
    """Speech in a room, by convolution with its impulse response, at the same power."""

    kind: Literal["reverb"] = "reverb"
    source = "rooms"
    spelling = "reverb"

    def draw(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> Applied:
        room = pick(pool.sources["rooms"], rng)
        return {"sources": [{"path": room.name} | ({} if room.index is None else {"index": room.index})]}

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        (room,) = applied["sources"]
        return reverberate(wave, pool.read(pool.find(room["path"], room.get("index"))))


def reverberate(speech: Waveform, response: Waveform) -> Waveform:
    """Convolve speech [S] with a room impulse response [taps], keeping its length, timing and power.

    What comes before the strongest tap (the direct sound) is delay, not room, and is cut off.
    """
    from scipy.signal import oaconvolve  # half a second to import

    direct = response[int(np.argmax(np.abs(response))) :]
    wet = oaconvolve(speech, direct)[: len(speech)]
    scaled: Waveform = (wet * np.sqrt(power(speech) / max(power(wet), FLOOR))).astype(np.float32)
    return scaled
