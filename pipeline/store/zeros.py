"""Vectors of zeros: they have no direction, so they cannot be compared, and are named where they are found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.embedding_store import EmbeddingStore

EXAMPLES = 3
"""Number of ids that a message gives."""


def zero_mask(values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return a mask [N] of the rows of vectors [N, ..., D] that hold a vector of zeros."""
    found = values[..., 0] == 0  # few, so that most numbers are not read
    found[found] = ~values[found].any(axis=1)
    return np.asarray(found.reshape(len(values), -1).any(axis=1))


def list_first(names: Sequence[str]) -> str:
    """Return the first few of some ids as text."""
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")


def require_directions(store: EmbeddingStore, rows: Sequence[int] | NDArray[np.int64], values: NDArray[Any]) -> None:
    """Raise StoreError, naming the first, if values [N, ..., D] of some rows [N] of a store hold a vector of zeros."""
    require_no_zeros(store, np.asarray(rows)[zero_mask(values)], len(values))


def require_no_zeros(store: EmbeddingStore, zero: NDArray[np.int64], count: int) -> None:
    """Raise StoreError, naming the first, if there are rows of zeros [Z] among `count` rows of a store."""
    if len(zero):
        names = [store.utterances[row] for row in zero]
        raise StoreError(
            f"{store.path}: {len(names):,} of {count:,} utterances have a vector of zeros, which has no direction,"
            f" first: {list_first(names)}. Import it again with --skip zeros, or extract it again; they then count as"
            " failed."
        )
