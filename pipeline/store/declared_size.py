"""The size that a store declares, checked against its files before anything of that size is read."""

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.store.read_errors import corrupt_error
from pipeline.utils.paths import Place

USUAL_ROW, USUAL_ROWS = 2**24, 2**22
"""Bytes of a row and number of rows up to which nothing is checked, because that much can be read anyhow."""
_MAX_RATIO = 1100
"""The highest ratio of content to its compressed size. Stores are not compressed, but those of others may be."""
_ID = 4
"""Number of bytes of an empty id in its array."""


def check_declared_size(path: Place, shape: Sequence[int], unfinished: bool) -> None:
    """Raise StoreError if a local store of embeddings [utterance, draw, view, dim] declares more than its files hold.

    If `unfinished`, ids may be missing.
    """
    if not isinstance(path, Path):
        return
    count, row = shape[0], 4 * math.prod(shape[1:])
    if count > USUAL_ROWS and not unfinished and _ID * count > _MAX_RATIO * _folder_size(path / "utterances"):
        raise corrupt_error(path, f"it declares {count:,} utterances, but its ids take few bytes")
    if row > USUAL_ROW and row > _MAX_RATIO * _folder_size(path / "embeddings"):
        raise corrupt_error(path, f"it declares {row:,} bytes a row, more than its files hold")


def _folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
