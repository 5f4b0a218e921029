"""Samples of the vectors of a store, for plots and quantiles that do not need all of them."""

import numpy as np

from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import CHUNK_ROWS
from pipeline.store.zeros import require_directions
from pipeline.utils.array_types import BoolArray, Float32Array, IntArray


def sample_rows(usable: BoolArray, limit: int, seed: int) -> IntArray:
    """Return at most about `limit` usable rows, given a mask [N], in whole chunks of the store."""
    chunks = np.random.default_rng(seed).permutation(-(-len(usable) // CHUNK_ROWS))[: max(1, limit // CHUNK_ROWS)]
    rows = (chunks[:, None] * CHUNK_ROWS + np.arange(CHUNK_ROWS)).ravel()
    rows = np.sort(rows[rows < len(usable)])
    kept: IntArray = rows[usable[rows]]
    return kept


def read_unit_vectors(store: EmbeddingStore, rows: IntArray) -> Float32Array:
    """Return one unit vector for each of some rows (rising) [rows, D], reading only their chunks.

    Raises:
        StoreError: one of their shards is damaged.
    """
    return mean_units(unit_crops(read_selected_rows(store, rows)[:, :, 0]))


def read_selected_rows(store: EmbeddingStore, rows: IntArray) -> Float32Array:
    """Return the embeddings [rows, draw, view, D] of some rows (rising), reading only their chunks.

    Raises:
        StoreError: one of their shards is damaged, or a vector is zero.
    """
    if len(rows) == 0:
        return np.empty((0, *store.shape[1:]), dtype=np.float32)
    chunks = rows // CHUNK_ROWS
    runs = np.split(rows, np.flatnonzero(np.diff(chunks) > 1) + 1)  # neighbouring chunks are read together
    parts = []
    for run in runs:
        start = int(run[0]) // CHUNK_ROWS * CHUNK_ROWS
        parts.append(store.read_rows(range(start, int(run[-1]) + 1))[run - start])
    values = np.concatenate(parts)
    require_directions(store, rows, values)
    return values
