"""Objects that other packages register by entry points, in groups such as `speaker_seed.encoders`."""

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pipeline.errors import ConfigError
from pipeline.utils.shortage import raise_shortage

GROUP = "speaker_seed.{kind}"
"""The entry-point group of a kind: encoders, corruptions, objectives or formats."""


def find_plugins(kind: str) -> dict[str, EntryPoint]:
    """Return the registered entry points of a kind by name, without importing them."""
    return _read_entry_points(GROUP.format(kind=kind), tuple(sys.path))


@cache
def _read_entry_points(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Read the metadata of all packages on `path`, which is `sys.path`: 50 ms."""
    return {point.name: point for point in entry_points(group=group)}


def load_plugin(kind: str, name: str) -> Any | None:
    """Import and return the object registered under a name, or None if there is none.

    Raises:
        ConfigError: importing it fails.
    """
    point = find_plugins(kind).get(name)
    try:
        return point.load() if point else None
    except Exception as error:
        raise_shortage(error, f"plugin {name}")
        where = f"plugin {name} ({GROUP.format(kind=kind)}): importing {point.value if point else ''}"
        raise ConfigError(f"{where} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
