"""Reverberation."""

from typing import Literal

import numpy as np

from pipeline.audio.augment.corruption import Applied, Corruption, SpeechInfo, pick
from pipeline.audio.augment.corruptions.noise import FLOOR, power
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import Waveform


class Reverb(Corruption):
    """Speech in a room, by convolution with its impulse response.

    The result keeps the timing and the power of the speech; with `response: unit`, neither.
    """

    kind: Literal["reverb"] = "reverb"
    response: Literal["unit"] | None = None
    """`unit`: the whole response at unit energy, as in voxceleb_trainer, with the delay before its direct sound and its
    change of the speech's power."""
    source = "rooms"
    spelling = "reverb"

    def draw(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> Applied:
        room = pick(pool.sources["rooms"], rng)
        applied: Applied = {"sources": [{"path": room.name} | ({} if room.index is None else {"index": room.index})]}
        return applied if self.response is None else applied | {"response": self.response}

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        (room,) = applied["sources"]
        response = pool.read(pool.find(room["path"], room.get("index")))
        return convolve_with_unit(wave, response) if applied.get("response") == "unit" else reverberate(wave, response)


def reverberate(speech: Waveform, response: Waveform) -> Waveform:
    """Convolve speech [S] with a room impulse response [taps], keeping its length, timing and power.

    What comes before the strongest tap (the direct sound) is delay, not room, and is cut off.
    """
    from scipy.signal import oaconvolve  # half a second to import

    direct = response[int(np.argmax(np.abs(response))) :]
    wet = oaconvolve(speech, direct)[: len(speech)]
    scaled: Waveform = (wet * np.sqrt(power(speech) / max(power(wet), FLOOR))).astype(np.float32)
    return scaled


def convolve_with_unit(speech: Waveform, response: Waveform) -> Waveform:
    """Convolve speech [S] with a room impulse response [taps] at unit energy, keeping its length."""
    from scipy.signal import oaconvolve

    norm = np.sqrt(max(float(np.sum(np.square(response, dtype=np.float64))), FLOOR))
    wet: Waveform = oaconvolve(speech, response / norm)[: len(speech)].astype(np.float32)
    return wet
