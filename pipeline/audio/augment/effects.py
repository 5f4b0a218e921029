"""What a channel does to speech: telephone, lossy codecs, clipping. Pure functions of waves [S] at 16 kHz.

Each returns a wave of the same length, in time with the first: what a codec or a filter delays is cut off.
"""

import io
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline.audio.reading import SAMPLE_RATE, Waveform
from pipeline.config.corruption import OPUS_KBIT
from pipeline.errors import ConfigError

TELEPHONE_RATE = 8_000
"""Hz."""
TELEPHONE_BAND = (300.0, 3400.0)
"""Hz; 6 dB down there."""

CODINGS = {
    "phone": ("WAV", "ULAW"),
    "gsm": ("WAV", "GSM610"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
}
"""Container and coding, as libsndfile calls them, of every kind of step that encodes and decodes."""

# Samples: LAME's delay, and that of every decoder. Below 64 kbit/s a frame is too small for the tag by which a decoder
# would know to cut them off.
_MP3_DELAY = 576 + 529


def telephone(speech: Waveform) -> Waveform:
    """Pass speech through a wired telephone: 300 to 3400 Hz, sampled at 8 kHz, 8-bit mu-law (G.711)."""
    from scipy.signal import butter, sosfiltfilt  # half a second to import

    narrow = soxr.resample(speech, SAMPLE_RATE, TELEPHONE_RATE)
    band = butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")
    # There and back again leaves no delay. A few samples at the ends are mirrored; a shorter wave has fewer.
    narrow = sosfiltfilt(band, narrow, padlen=min(27, len(narrow) - 1)).astype(np.float32)
    return _widened(_coded(narrow, TELEPHONE_RATE, "phone"), len(speech))


def gsm(speech: Waveform) -> Waveform:
    """Pass speech through a mobile telephone of the nineties: 8 kHz, GSM 06.10 full rate, 13 kbit/s."""
    narrow = soxr.resample(speech, SAMPLE_RATE, TELEPHONE_RATE)
    return _widened(_coded(narrow, TELEPHONE_RATE, "gsm"), len(speech))


def mp3(speech: Waveform, kbit: int) -> Waveform:
    """Store speech as MP3 of constant rate, one of `MP3_KBIT`, and play it."""
    # libsndfile maps 0 to 1 to the rates 160 to 8 at this sampling rate, rounding down; aim between two.
    level = max(0.0, (160 - kbit - 0.5) / 152)
    return _coded(speech, SAMPLE_RATE, "mp3", level)


def opus(speech: Waveform, kbit: int) -> Waveform:
    """Store speech as Opus, variable around `kbit` kbit/s, and play it."""
    return _coded(speech, SAMPLE_RATE, "opus", (OPUS_KBIT[1] - kbit) / (OPUS_KBIT[1] - OPUS_KBIT[0]))


def vorbis(speech: Waveform, quality: int) -> Waveform:
    """Store speech as Ogg Vorbis of a quality from 0 to 10, and play it."""
    return _coded(speech, SAMPLE_RATE, "vorbis", 1 - quality / 10)


def clip(speech: Waveform, percent: float) -> Waveform:
    """Cut off the loudest `percent` % of the samples, as an overdriven input does; digital silence does not count."""
    loudness = np.abs(speech[speech != 0])
    if len(loudness) == 0:
        return speech
    limit = np.float32(np.quantile(loudness, 1 - percent / 100))
    return np.clip(speech, -limit, limit)


def check_codec(kind: str) -> None:
    """Raise ConfigError if this libsndfile cannot write what a kind of step, a key of `CODINGS`, needs."""
    container, coding = CODINGS[kind]
    if not soundfile.check_format(container, coding):
        raise ConfigError(
            f"libsndfile {soundfile.__libsndfile_version__} cannot write {coding} in {container}. Install the"
            f" soundfile wheel of your platform, or leave out the views and conditions that need {kind}."
        )


def _coded(wave: Waveform, rate: int, kind: str, level: float | None = None) -> Waveform:
    """Encode and decode a wave [S] at `rate` Hz in memory; `level` is libsndfile's, 0 (best) to 1 (smallest)."""
    check_codec(kind)
    container, coding = CODINGS[kind]
    # A recordist would turn down what is louder than full scale; clipping is a degradation of its own.
    gain = np.float32(max(1.0, float(np.abs(wave).max())))
    samples: NDArray[np.int16] = np.clip(np.round(wave / gain * 32_768), -32_768, 32_767).astype(np.int16)
    mode = "CONSTANT" if kind == "mp3" else None
    memory = io.BytesIO()
    soundfile.write(memory, samples, rate, format=container, subtype=coding, compression_level=level, bitrate_mode=mode)
    memory.seek(0)
    decoded, _ = soundfile.read(memory, dtype="float32")
    # MP3 files that say how much to cut off come back as long as they were.
    delay = _MP3_DELAY if kind == "mp3" and len(decoded) != len(wave) else 0
    return _fitted(decoded[delay:] * gain, len(wave))


def _widened(narrow: Waveform, length: int) -> Waveform:
    """Bring a wave of the telephone's rate back to 16 kHz and `length` samples."""
    return _fitted(soxr.resample(narrow, TELEPHONE_RATE, SAMPLE_RATE), length)


def _fitted(wave: Waveform, length: int) -> Waveform:
    """Cut a wave to `length` samples, or fill it up with silence."""
    fitted: Waveform = np.zeros(length, dtype=np.float32)
    fitted[: min(length, len(wave))] = wave[:length]
    return fitted


_FLOOR = 1e-12  # mean power of an inaudible signal; keeps a silent crop from dividing by zero


def power(wave: Waveform) -> float:
    """Return the mean square of a wave [S]."""
    return float(np.mean(np.square(wave, dtype=np.float64)))


def add_at_snr(speech: Waveform, noise: Waveform, snr: float) -> Waveform:
    """Add noise [S] to speech [S] so that 10 log10(P_speech / P_noise) is `snr` dB over the whole length."""
    gain = np.sqrt(power(speech) / max(power(noise), _FLOOR) / 10 ** (snr / 10))
    return (speech + np.float32(gain) * noise).astype(np.float32)


def babble(crops: Sequence[Waveform]) -> Waveform:
    """Sum crops [S] of several talkers, each brought to the same power."""
    mixed: Waveform = np.sum([crop / np.sqrt(max(power(crop), _FLOOR)) for crop in crops], axis=0).astype(np.float32)
    return mixed


def reverberate(speech: Waveform, response: Waveform) -> Waveform:
    """Convolve speech [S] with a room impulse response [taps], keeping its length, timing and power.

    What comes before the strongest tap (the direct sound) is delay, not room, and is cut off.
    """
    from scipy.signal import oaconvolve  # half a second to import

    direct = response[int(np.argmax(np.abs(response))) :]
    wet = oaconvolve(speech, direct)[: len(speech)]
    scaled: Waveform = (wet * np.sqrt(power(speech) / max(power(wet), _FLOOR))).astype(np.float32)
    return scaled
