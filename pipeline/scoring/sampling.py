"""A sample of the vectors of a store, for pictures and quantiles that need not see all of it."""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.trials.table import Index
from pipeline.scoring.comparison import Vectors, mean_units, unit_crops
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import CHUNK_ROWS


def sample_rows(usable: NDArray[np.bool_], limit: int, seed: int) -> Index:
    """Return at most about `limit` row numbers of a mask [N], in whole blocks that a store can read by themselves."""
    blocks = np.random.default_rng(seed).permutation(-(-len(usable) // CHUNK_ROWS))[: max(1, limit // CHUNK_ROWS)]
    rows = (blocks[:, None] * CHUNK_ROWS + np.arange(CHUNK_ROWS)).ravel()
    rows = np.sort(rows[rows < len(usable)])
    kept: Index = rows[usable[rows]]
    return kept


def read_vectors(store: EmbeddingStore, rows: Index) -> Vectors:
    """Return one unit vector an utterance [rows, D] of some rows (rising), reading little more than these.

    Raises:
        StoreError: a shard that they lie in is damaged.
    """
    return mean_units(unit_crops(read_some(store, rows)[:, :, 0]))


def read_some(store: EmbeddingStore, rows: Index) -> Vectors:
    """Return the embeddings [rows, draw, view, D] of some rows (rising), reading little more than these.

    Raises:
        StoreError: a shard that they lie in is damaged.
    """
    if len(rows) == 0:
        return np.empty((0, *store.shape[1:]), dtype=np.float32)
    blocks = rows // CHUNK_ROWS
    runs = np.split(rows, np.flatnonzero(np.diff(blocks) > 1) + 1)  # neighbouring blocks are read together
    parts = []
    for run in runs:
        start = int(run[0]) // CHUNK_ROWS * CHUNK_ROWS
        parts.append(store.read_rows(range(start, int(run[-1]) + 1))[run - start])
    return np.concatenate(parts)
