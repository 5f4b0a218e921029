"""The content of some rows of a store of audio."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowContents:
    """The content of some rows of a store of audio."""

    values: NDArray[np.float32]
    """Embeddings [rows, draw, view, dim]."""
    traces: NDArray[np.object_]
    """Traces [rows, draw, view] as JSON."""
    fingerprints: NDArray[np.uint8]
    """Fingerprints [rows, 16]."""

    @classmethod
    def join(cls, parts: "Sequence[RowContents]") -> "RowContents":
        """Return the rows of several parts, one after another."""
        columns = zip(*((part.values, part.traces, part.fingerprints) for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))
