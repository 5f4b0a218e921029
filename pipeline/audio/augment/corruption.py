"""The base class of corruptions: settings, drawing, application, and spelling in a condition's name."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import AfterValidator, Field

from pipeline.audio.reading import Waveform
from pipeline.utils.validation import Frozen

if TYPE_CHECKING:
    from pipeline.audio.augment.sources import SourcePool

Applied = dict[str, Any]
"""One step as it happened: `kind`; `snr` in dB; `sources`, each a `path` as listed with the `start` of its crop in
samples or the `index` of its response; `percent`, `kbit` or `quality`; `floor` and `response` if they are set."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class SpeechInfo:
    """The speech to corrupt; its speaker is kept out of the babble, or its file if the speaker is unknown."""

    samples: int
    speaker: str | None = None
    path: Path | None = None


class Corruption(Frozen, ABC):
    """One thing that may happen to speech, with probability `probability`.

    Each subclass is one kind. It declares `kind` as a `Literal` with a default, and its settings as fields.
    """

    kind: str
    probability: float = Field(1.0, gt=0, le=1)

    source: ClassVar[str | None] = None
    """The kind of source that it draws on: noise, music, rooms or babble."""
    spelling: ClassVar[str] = ""
    """Its part of a condition's name, such as `noise<dB>`, with an integer in place of <…>; "" if it has none."""
    units: ClassVar[Mapping[str, str]] = {}
    """The text after each number of a trace, by its key."""

    @abstractmethod
    def draw(self, speech: SpeechInfo, pool: "SourcePool", rng: np.random.Generator) -> Applied:
        """Draw how it happens, and return the trace without `kind`, as JSON values."""

    @classmethod
    @abstractmethod
    def apply(cls, wave: Waveform, applied: Applied, pool: "SourcePool") -> Waveform:
        """Return a wave [S] corrupted as a trace says, of the same length and in time with it."""

    @classmethod
    def check(cls) -> None:
        """Raise ConfigError if it cannot be applied on this machine."""

    @classmethod
    def settings_at(cls, number: int) -> dict[str, Any]:
        """Return the settings for a number in a condition's name; none unless a subclass takes a number."""
        return {}

    @classmethod
    def match_condition(cls, part: str) -> dict[str, Any] | None:
        """Return the settings that a part of a condition's name spells, or None if it spells another kind."""
        pattern = re.sub("<.*>", r"(-?\\d+)", re.escape(cls.spelling))
        if not pattern or not (match := re.fullmatch(pattern, part)):
            return None
        return cls.settings_at(int(match[1])) if match.groups() else {}


def pick(values: Sequence[_T], rng: np.random.Generator) -> _T:
    """Draw one of several values, all equally likely."""
    return values[int(rng.integers(len(values)))]


def draw_between(limits: Sequence[float], rng: np.random.Generator) -> float:
    """Draw a number evenly from [lowest, highest]."""
    low, high = limits
    return float(rng.uniform(low, high))


def within(low: float, high: float, what: str) -> AfterValidator:
    """Return a validator of [lowest, highest] that must lie between two limits."""

    def check(values: list[float]) -> list[float]:
        if not low <= values[0] <= values[1] <= high:
            raise ValueError(f"must be [lowest, highest] {what}, between {low:g} and {high:g}")
        return values

    return AfterValidator(check)


Range = Annotated[list[float], Field(min_length=2, max_length=2)]
