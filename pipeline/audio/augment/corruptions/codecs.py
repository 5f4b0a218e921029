"""Lossy codecs of libsndfile, encoded and decoded in memory."""

import io
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field

from pipeline.audio.augment.corruption import Applied, Corruption, SpeechInfo, pick
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import SAMPLE_RATE, Waveform
from pipeline.errors import ConfigError

OPUS_KBIT = (6, 256)
"""Lowest and highest target rate, kbit/s."""


class Codec(Corruption):
    """Store speech in a lossy format and play it."""

    container: ClassVar[str]
    coding: ClassVar[str]
    """The names of libsndfile."""
    bitrate_mode: ClassVar[str | None] = None
    delay: ClassVar[int] = 0
    """Samples that decoders add in front, unless the file says how many to cut off."""

    @classmethod
    def settings_at(cls, number: int) -> dict[str, Any]:
        return {key: [number] for key in cls.units}

    def draw(self, speech: SpeechInfo, pool: SourcePool, rng: np.random.Generator) -> Applied:
        return {key: pick(getattr(self, key), rng) for key in self.units}

    @classmethod
    def check(cls) -> None:
        if not soundfile.check_format(cls.container, cls.coding):
            raise ConfigError(
                f"libsndfile {soundfile.__libsndfile_version__} cannot write {cls.coding} in {cls.container}. Install"
                " the soundfile wheel of your platform, or leave out the views and conditions that need"
                f" {cls.model_fields['kind'].default}."
            )

    @classmethod
    def code(cls, wave: Waveform, rate: int, level: float | None = None) -> Waveform:
        """Encode and decode a wave [S] at `rate` Hz; `level` is libsndfile's, 0 (best) to 1 (smallest)."""
        cls.check()
        # A recordist would turn down what is louder than full scale; clipping is a corruption of its own.
        gain = np.float32(max(1.0, float(np.abs(wave).max())))
        samples: NDArray[np.int16] = np.clip(np.round(wave / gain * 32_768), -32_768, 32_767).astype(np.int16)
        form = {"format": cls.container, "subtype": cls.coding, "bitrate_mode": cls.bitrate_mode}
        memory = io.BytesIO()
        soundfile.write(memory, samples, rate, compression_level=level, **form)
        memory.seek(0)
        decoded, _ = soundfile.read(memory, dtype="float32")
        # Files that say how much to cut off come back as long as they were.
        delay = 0 if len(decoded) == len(wave) else cls.delay
        return fit(decoded[delay:] * gain, len(wave))


class Mp3(Codec):
    """MP3 (MPEG-2 layer III) of a constant rate."""

    kind: Literal["mp3"] = "mp3"
    kbit: list[Literal[8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]] = Field(min_length=1)

    spelling = "mp3-<kbit>k"
    units: ClassVar = {"kbit": " kbit/s"}
    container, coding, bitrate_mode = "MP3", "MPEG_LAYER_III", "CONSTANT"
    # LAME's delay, and that of every decoder. Below 64 kbit/s a frame is too small for the tag that says so.
    delay = 576 + 529

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        # libsndfile maps 0 to 1 to the rates 160 to 8 at this sampling rate, rounding down; aim between two.
        return cls.code(wave, SAMPLE_RATE, max(0.0, (160 - applied["kbit"] - 0.5) / 152))


class Opus(Codec):
    """Opus of a variable rate around `kbit` kbit/s."""

    kind: Literal["opus"] = "opus"
    kbit: list[Annotated[int, Field(ge=OPUS_KBIT[0], le=OPUS_KBIT[1])]] = Field(min_length=1)

    spelling = "opus-<kbit>k"
    units: ClassVar = {"kbit": " kbit/s"}
    container, coding = "OGG", "OPUS"

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        return cls.code(wave, SAMPLE_RATE, (OPUS_KBIT[1] - applied["kbit"]) / (OPUS_KBIT[1] - OPUS_KBIT[0]))


class Vorbis(Codec):
    """Ogg Vorbis of a quality from 0 (poorest) to 10."""

    kind: Literal["vorbis"] = "vorbis"
    quality: list[Annotated[int, Field(ge=0, le=10)]] = Field(min_length=1)

    spelling = "vorbis-q<0..10>"
    units: ClassVar = {"quality": " of 10"}
    container, coding = "OGG", "VORBIS"

    @classmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
        return cls.code(wave, SAMPLE_RATE, 1 - applied["quality"] / 10)


def fit(wave: Waveform, length: int) -> Waveform:
    """Cut a wave to `length` samples, or pad it with silence."""
    fitted: Waveform = np.zeros(length, dtype=np.float32)
    fitted[: min(length, len(wave))] = wave[:length]
    return fitted
