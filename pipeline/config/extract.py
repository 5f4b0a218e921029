"""The block `extract` of `params.yaml`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pipeline.audio.augment.steps import Step
from pipeline.utils.validation import MAX_COUNT, MAX_WORKERS, NAME, Frozen

HOP = 160
"""Samples between the starts of two frames at 16 kHz."""

OVERHANG = 240
"""Samples by which the last 400-sample window exceeds its hop."""

MAX_FRAMES = 3 * 360_000
"""The number of frames of the longest recording that is read, three hours."""

_BABBLE = {"kind": "babble", "probability": 0.3, "snr": [0.0, 15.0], "talkers": [3, 7]}
DEFAULT_VIEWS: dict[str, list[Any]] = {
    "noise": [{"one_of": [_BABBLE, {"kind": "noise", "probability": 0.7, "snr": [0.0, 15.0]}]}],
    "music": [{"kind": "music", "snr": [5.0, 15.0]}],
    "reverb": [{"kind": "reverb"}],
}
"""The training views of `params.yaml`."""

Steps = Annotated[list[Step], Field(min_length=1)]
"""The steps of a view in turn, for example reverberation and then noise."""


def _check_view_names(views: dict[str, Steps]) -> dict[str, Steps]:
    for name in views:
        if name == "clean" or not NAME.fullmatch(name):
            raise ValueError(f"view {name!r}: use letters, digits, '-' and '_'; 'clean' is built in")
    return views


Views = Annotated[dict[str, Steps], Field(min_length=1), AfterValidator(_check_view_names)]


class Extract(Frozen):
    """Stage one: encode clean and corrupted crops."""

    draws: int = Field(4, ge=1, le=10_000)
    frames: int = Field(200, ge=10, le=MAX_FRAMES)
    views: Views = Field(DEFAULT_VIEWS, validate_default=True)
    eval_crops: int = Field(1, ge=1, le=10_000)
    eval_frames: int | None = Field(None, ge=10, le=MAX_FRAMES)
    shard: int = Field(64, ge=1, le=MAX_COUNT)
    batch: int = Field(1, ge=1, le=10_000)
    scheduler: str = Field("threads", pattern=r"^(threads|processes|[a-z]+://.+)$")
    workers: int = Field(2, ge=0, le=MAX_WORKERS)
    prefetch: int = Field(2, ge=0, le=10_000)
    max_failures: int = Field(10, ge=0)
    short_audio: Literal["wrap", "fail"] = "wrap"
    loud_audio: Literal["keep", "normalize"] = "keep"
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "auto"


def frames_to_samples(frames: int) -> int:
    """Return the number of samples in `frames` windows of 25 ms every 10 ms at 16 kHz, as in the paper."""
    return frames * HOP + OVERHANG
