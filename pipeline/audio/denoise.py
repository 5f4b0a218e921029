"""Speech enhancement of the waveform before the encoder, by the RNNoise of the package pyrnnoise.

Only the binding is loaded, from its file, because importing the package would import video codecs.
"""

from collections.abc import Callable
from ctypes import POINTER, c_float
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soxr

from pipeline.audio.reading import SAMPLE_RATE, Waveform
from pipeline.errors import AudioError, ConfigError
from pipeline.utils.shortage import raise_shortage

Denoise = Literal["none", "rnnoise"]
"""The front-ends by name; `none` is no denoising."""

RATE = 48_000  # Hz, of RNNoise
FRAME = 480  # samples in a frame at that rate, 10 ms
DELAY = 960  # samples at that rate by which the output lags, 20 ms: half of the window, and one frame of look-ahead
FULL_SCALE = 32_768  # scale of the input: floats in the range of 16-bit integers

ADVICE = "pip install '.[rnnoise]' (docs/install.md), or the denoiser alone: pip install --no-deps pyrnnoise==0.4.5"


@dataclass(frozen=True)
class Rnnoise:
    """A front-end that maps a wave [S] at 16 kHz to one of the same length and timing."""

    name: str
    """The method and version, as stores record them."""
    run: Callable[[Waveform], Waveform]

    def __call__(self, wave: Waveform) -> Waveform:
        """Return a denoised wave [S], a function of that wave alone; raise AudioError if it is not finite."""
        if not np.isfinite(wave).all():
            raise AudioError("NaN or infinite samples cannot be denoised.")
        return self.run(wave)


@cache
def load_denoiser(name: Denoise) -> Rnnoise | None:
    """Return a front-end by name, or None; raise ConfigError if its package is absent or does not work here."""
    if name == "none":
        return None
    return Rnnoise(f"rnnoise (pyrnnoise {version('pyrnnoise')})", partial(_rnnoise, _binding()))


def _binding() -> Any:
    """Load `pyrnnoise/rnnoise.py`, which wraps the C library."""
    package = find_spec("pyrnnoise")
    try:
        installed = version("pyrnnoise") if package and package.submodule_search_locations else None
    except PackageNotFoundError:  # a folder of that name
        installed = None
    if package is None or installed is None:
        raise ConfigError(f"denoise rnnoise needs the package pyrnnoise: {ADVICE}")
    try:
        path = Path(next(iter(package.submodule_search_locations or ()))) / "rnnoise.py"
        spec = spec_from_file_location("_pyrnnoise_binding", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a module")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        if (module.FRAME_SIZE, module.SAMPLE_RATE) != (FRAME, RATE):
            raise ImportError(f"frames of {module.FRAME_SIZE} samples at {module.SAMPLE_RATE} Hz")
    except (ImportError, OSError, AttributeError) as error:
        raise_shortage(error, "pyrnnoise")
        reason = " ".join(str(error).split())
        raise ConfigError(f"denoise rnnoise: pyrnnoise {installed} does not work here ({reason}). {ADVICE}") from error
    return module


def _rnnoise(binding: Any, wave: Waveform) -> Waveform:
    """Denoise a wave [S] at 16 kHz in a fresh state, frame by frame, and compensate the delay."""
    if len(wave) == 0:
        return wave
    fine = soxr.resample(wave * np.float32(FULL_SCALE), SAMPLE_RATE, RATE)
    frames = np.zeros((-(-(len(fine) + DELAY) // FRAME), FRAME), np.float32)
    frames.reshape(-1)[: len(fine)] = fine
    state = binding.create()
    try:
        for frame in frames:
            samples = frame.ctypes.data_as(POINTER(c_float))
            binding.lib.rnnoise_process_frame(state, samples, samples)
    finally:
        binding.destroy(state)
    denoised = frames.reshape(-1)[DELAY : DELAY + len(fine)] / np.float32(FULL_SCALE)
    return np.ascontiguousarray(soxr.resample(denoised, RATE, SAMPLE_RATE))
