"""Evaluation conditions, read from their names: `clean`, or corruptions in turn such as `reverb_noise5`."""

from pipeline.audio.augment.corruption import Corruption
from pipeline.audio.augment.corruptions import all_corruptions
from pipeline.audio.augment.corruptions.noise import Additive
from pipeline.errors import ConfigError
from pipeline.utils.validation import validated


def condition_steps(name: str) -> tuple[Corruption, ...]:
    """Read a condition's name: `clean`, or the spellings of corruptions in turn, joined by `_`.

    Raises:
        ConfigError: no condition has this name.
    """
    return () if name == "clean" else tuple(_read_part(part, name) for part in name.split("_"))


def is_condition(name: str) -> bool:
    """Return whether a name is one of a condition."""
    try:
        condition_steps(name)
    except ConfigError:
        return False
    return True


def condition_snr(name: str) -> float | None:
    """Return the SNR in dB of a condition that adds exactly one sound, else None."""
    snrs = [step.snr[0] for step in condition_steps(name) if isinstance(step, Additive)]
    return snrs[0] if len(snrs) == 1 else None


def _read_part(part: str, name: str) -> Corruption:
    for corruption in all_corruptions():
        settings = corruption.match_condition(part)
        if settings is not None:
            return validated(corruption, settings, f"condition {name!r}")
    spellings = ", ".join(corruption.spelling for corruption in all_corruptions() if corruption.spelling)
    raise ConfigError(
        f"unknown condition {name!r}: it is 'clean', or {spellings}, joined by '_' in the order in which they happen,"
        " for example noise5 or reverb_noise5"
    )
