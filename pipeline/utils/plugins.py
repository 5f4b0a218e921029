"""Objects that other packages register by entry points, in groups such as `speaker_seed.encoders`."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pipeline.errors import ConfigError

GROUP = "speaker_seed.{kind}"
"""The entry-point group of a kind: encoders, corruptions, objectives or formats."""


def find_plugins(kind: str) -> dict[str, EntryPoint]:
    """Return the registered entry points of a kind by name, without importing them."""
    return {point.name: point for point in entry_points(group=GROUP.format(kind=kind))}


def load_plugin(kind: str, name: str) -> Any | None:
    """Import and return the object registered under a name, or None if there is none.

    Raises:
        ConfigError: importing it fails.
    """
    point = find_plugins(kind).get(name)
    try:
        return point.load() if point else None
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"plugin {name} ({GROUP.format(kind=kind)}): importing {point.value if point else ''} failed:"
            f" {type(error).__name__}: {reason}"
        ) from error
