"""Steps of a view: what may happen to speech, how often and how much, as `params.yaml` and condition names say it."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.errors import ConfigError
from pipeline.utils.validation import Frozen, validated

MP3_KBIT = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Constant rates that MP3 (MPEG-2 layer III) has at 16 kHz."""


OPUS_KBIT = (6, 256)
"""Lowest and highest rate aimed at in kbit/s."""


VORBIS_QUALITY = (0, 10)
"""Poorest and best."""


LOUDEST, QUIETEST = -60.0, 100.0
"""SNRs (dB) beyond these are mistakes: nothing would be left of the one or of the other signal."""
TALKERS = (3, 7)
"""Fewest and most voices in babble, as in the usual MUSAN recipes."""
CLIPPED = (0.0, 50.0)
"""Least and most of the samples (%) to clip."""

SOURCES = {"noise": "noise", "music": "music", "babble": "babble", "reverb": "rooms"}
"""What each kind of step draws on; the other kinds draw on nothing."""

_SETTINGS = {
    "noise": {"snr"},
    "music": {"snr"},
    "babble": {"snr", "talkers"},
    "mp3": {"kbit"},
    "opus": {"kbit"},
    "vorbis": {"quality"},
    "clip": {"percent"},
}
_OPTIONAL = {"talkers"}


def _decibels(values: list[float]) -> list[float]:
    if not LOUDEST <= values[0] <= values[1] <= QUIETEST:
        raise ValueError(f"must be [lowest, highest] SNR in dB, between {LOUDEST:g} and {QUIETEST:g}")
    return values


def _headcount(values: list[int]) -> list[int]:
    if not 1 <= values[0] <= values[1]:
        raise ValueError("must be [fewest, most] talkers, at least 1")
    return values


def _share(values: list[float]) -> list[float]:
    if not CLIPPED[0] <= values[0] <= values[1] <= CLIPPED[1]:
        raise ValueError(f"must be [lowest, highest] % of the samples, between {CLIPPED[0]:g} and {CLIPPED[1]:g}")
    return values


Decibels = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_decibels)]
Talkers = Annotated[list[int], Field(min_length=2, max_length=2), AfterValidator(_headcount)]
Percent = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_share)]
Choice = Annotated[list[int], Field(min_length=1)]


class Effect(Frozen):
    """One thing that happens to speech, with probability `probability`.

    `snr` (dB), `talkers` and `percent` are drawn evenly from [lowest, highest]; `kbit` (kbit/s) and `quality` are one
    of the values listed.
    """

    kind: Literal["noise", "music", "babble", "reverb", "phone", "gsm", "mp3", "opus", "vorbis", "clip"]
    probability: float = Field(1.0, gt=0, le=1)
    snr: Decibels | None = None
    talkers: Talkers | None = None
    percent: Percent | None = None
    kbit: Choice | None = None
    quality: Choice | None = None

    @model_validator(mode="after")
    def _settings_are_those_of_the_kind(self) -> "Effect":
        known = _SETTINGS.get(self.kind, set())
        given = {key for key in ("snr", "talkers", "percent", "kbit", "quality") if getattr(self, key) is not None}
        for key in sorted(given - known):
            raise ValueError(f"{self.kind} takes no {key}; it takes {', '.join(sorted(known)) or 'no settings'}")
        for key in sorted(known - given - _OPTIONAL):
            raise ValueError(f"{self.kind} needs {key}")
        if self.kind == "mp3" and not set(self.kbit or ()) <= set(MP3_KBIT):
            raise ValueError(f"kbit of mp3 at 16 kHz: each one of {', '.join(map(str, MP3_KBIT))}")
        for key, kind, (low, high) in (("kbit", "opus", OPUS_KBIT), ("quality", "vorbis", VORBIS_QUALITY)):
            if self.kind == kind and not all(low <= value <= high for value in getattr(self, key)):
                raise ValueError(f"{key} of {kind}: each between {low} and {high}")
        return self


class OneOf(Frozen):
    """At most one of several effects happens, each with its probability; with what is left to 1, none of them."""

    one_of: list[Effect] = Field(min_length=1)

    @model_validator(mode="after")
    def _probabilities_are_shares(self) -> "OneOf":
        if sum(effect.probability for effect in self.one_of) > 1 + 1e-9:
            raise ValueError("the probabilities of one_of add up to more than 1")
        return self


def _step(content: Any) -> Any:
    """Read a step as the model that its keys ask for, so that an error names the key and not one of two models."""
    if isinstance(content, dict):
        return (OneOf if "one_of" in content else Effect).model_validate(content)
    if isinstance(content, Effect | OneOf):
        return content
    raise ValueError("must be a step, such as {kind: noise, snr: [0, 15]} or {one_of: [...]}")


Step = Annotated[Effect | OneOf, BeforeValidator(_step)]
Steps = Annotated[list[Step], Field(min_length=1)]
"""What happens in turn, for example reverberation and then noise."""


def effects(step: Effect | OneOf) -> list[Effect]:
    """Return what may happen in a step."""
    return step.one_of if isinstance(step, OneOf) else [step]


_PARTS = (
    (re.compile(r"(noise|music|babble)(-?\d+)"), "snr"),
    (re.compile(r"(clip)(\d+)"), "percent"),
    (re.compile(r"(mp3|opus)-(\d+)k"), "kbit"),
    (re.compile(r"(vorbis)-q(\d+)"), "quality"),
    (re.compile(r"(reverb|phone|gsm)()"), ""),
)
CONDITIONS = "noise<dB>, music<dB>, babble<dB>, reverb, phone, gsm, mp3-<kbit>k, opus-<kbit>k, vorbis-q<0..10>, clip<%>"
"""The parts of a condition's name, for people."""


def condition_steps(name: str) -> tuple[Effect, ...]:
    """Read a condition's name: `clean`, or what happens in turn, joined by `_`; see `CONDITIONS`.

    Raises:
        ConfigError: the name is no such condition.
    """
    return () if name == "clean" else tuple(_part(part, name) for part in name.split("_"))


def is_condition(name: str) -> bool:
    """Return whether a name is one of a condition."""
    try:
        condition_steps(name)
    except ConfigError:
        return False
    return True


def _part(part: str, name: str) -> Effect:
    for pattern, key in _PARTS:
        match = pattern.fullmatch(part)
        if match is None:
            continue
        content: dict[str, Any] = {"kind": match[1]}
        if key:
            value = int(match[2])
            content[key] = [value] if key in ("kbit", "quality") else [value, value]
        return validated(Effect, content, f"condition {name!r}")
    raise ConfigError(
        f"unknown condition {name!r}: it is 'clean', or {CONDITIONS}, joined by '_' in the order in which they happen,"
        " for example noise5 or reverb_noise5"
    )
