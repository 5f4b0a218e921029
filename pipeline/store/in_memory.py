"""Arrays of embeddings as a store in memory, which training accepts like one on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import VectorError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK, SPACE

_SHARD_ROWS = 1024


@dataclass(frozen=True)
class ArrayStore(EmbeddingStore):
    """Embeddings [utterance, draw, view, dim] in memory."""

    values: NDArray[np.float32] = field(repr=False)

    @property
    def _embeddings(self) -> NDArray[np.float32]:
        return self.values

    def shards(self) -> list[range]:
        """Return the rows in parts, see `EmbeddingStore.shards`."""
        count = len(self.values)
        return [range(start, min(start + _SHARD_ROWS, count)) for start in range(0, count, _SHARD_ROWS)]


def array_store(
    clean: NDArray[np.floating[Any]], noisy: NDArray[np.floating[Any]], encoder: Mapping[str, Any] | None = None
) -> ArrayStore:
    """Return a store of clean and noisy embeddings of the same crops, with utterances named 0, 1, 2, ….

    Args:
        clean: clean embeddings [N, D], or [N, draws, D] with several crops per utterance.
        noisy: embeddings [N, V, D] or [N, draws, V, D] of each crop with V corruptions.
        encoder: attributes that identify the encoder: its name `encoder`, `family`, `weights_sha256`, `front_end`.

    Raises:
        VectorError: the shapes do not match, the arrays are not floats, or they hold NaN or infinite values.
    """
    arrays = []
    for name, each, axes in (("clean", clean, "N, D"), ("noisy", noisy, "N, V, D")):
        given = np.asarray(each)
        if given.dtype.kind != "f":
            raise VectorError(f"{name} vectors are {given.dtype}; give floats [{axes}].")
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which is reported below
            exact = given.astype(np.float32)
        if not np.isfinite(exact).all():
            bad = np.flatnonzero(~np.isfinite(exact).reshape(len(exact), -1).all(axis=1))
            rows = f"{len(bad)} of {len(exact)} rows, first: row {bad[0]}"
            raise VectorError(f"{name} vectors hold NaN or infinite values in {rows}. Leave them out.")
        arrays.append(exact)
    first, others = arrays
    if first.ndim not in (2, 3) or others.ndim != first.ndim + 1:
        raise VectorError(
            f"clean vectors of shape {first.shape} and noisy ones of {others.shape}; give [N, D] and [N, V, D], or"
            " [N, draws, D] and [N, draws, V, D]."
        )
    if first.shape[:-1] != others.shape[:-2] or first.shape[-1] != others.shape[-1] or 0 in first.shape:
        raise VectorError(f"clean vectors of shape {first.shape} and noisy of {others.shape} do not fit each other.")
    if first.ndim == 2:
        first, others = first[:, None], others[:, None]
    values = np.concatenate([first[:, :, None], others], axis=2)
    dim = values.shape[-1]
    attributes = {"encoder": None, **dict.fromkeys(SPACE), **(encoder or {})}
    if attributes.get("dim") not in (None, dim):
        raise VectorError(f"vectors have {dim} numbers, but the given encoder has {attributes['dim']}.")
    ids = tuple(map(str, range(len(values))))
    return ArrayStore(Path("arrays"), attributes | {"dim": dim}, ids, np.full(len(ids), OK, np.uint8), values)
