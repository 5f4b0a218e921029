"""Telephones: 8 kHz, wired or mobile."""

from typing import Literal

import numpy as np
import soxr

from pipeline.audio.augment.corruption import Applied
from pipeline.audio.augment.corruptions.codecs import Codec, fit
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import SAMPLE_RATE, Waveform

RATE = 8_000  # Hz
BAND = (300.0, 3400.0)  # Hz, the pass band of a wired telephone; its edges are at -6 dB


class Phone(Codec):
    """A wired telephone: 300 to 3400 Hz, sampled at 8 kHz, 8-bit mu-law (G.711)."""

    kind: Literal["phone"] = "phone"
    spelling = "phone"
    container, coding = "WAV", "ULAW"

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        from scipy.signal import butter, sosfiltfilt  # half a second to import

        narrow = soxr.resample(wave, SAMPLE_RATE, RATE)
        band = butter(4, BAND, "bandpass", fs=RATE, output="sos")
        # Filtering in both directions leaves no delay. It mirrors a few samples at the ends; a short wave has fewer.
        narrow = sosfiltfilt(band, narrow, padlen=min(27, len(narrow) - 1)).astype(np.float32)
        return fit(soxr.resample(cls.code(narrow, RATE), RATE, SAMPLE_RATE), len(wave))


class Gsm(Codec):
    """A mobile telephone of the nineties: 8 kHz, GSM 06.10 full rate, 13 kbit/s."""

    kind: Literal["gsm"] = "gsm"
    spelling = "gsm"
    container, coding = "WAV", "GSM610"

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        narrow = soxr.resample(wave, SAMPLE_RATE, RATE)
        return fit(soxr.resample(cls.code(narrow, RATE), RATE, SAMPLE_RATE), len(wave))
