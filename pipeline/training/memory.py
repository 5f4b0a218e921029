"""How `train.memory` is divided between the parts of training."""

import math
from dataclasses import dataclass

from pipeline.config.train import Train
from pipeline.errors import ConfigError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.pairs import count_vectors

GB = 10**9

IN_MEMORY = 4
"""Peak of training in memory, in sizes of the store: the pairs, and three stages of their preparation."""
AHEAD = 2
"""Number of shards that are prefetched."""
IN_FLIGHT = 8
"""Maximum number of shards outside the buffer: one being read (four times its size, while Zarr decodes it and failed
rows are dropped), AHEAD prefetched ones, one being added to the buffer, and one that the buffer holds in excess."""
MIXED = 3
"""Minimum number of shards in the buffer; fewer would hardly mix utterances that are neighbours in the store."""
PER_BATCH = 5
"""Number of batches in memory: one, and the stages of its preparation."""
USED = 0.9
"""Share of `train.memory` that is planned; the rest is for fragmentation by the allocator."""
PER_UTTERANCE = 16
"""Bytes of bookkeeping per utterance: its role, and the lists from which roles are chosen."""
VALIDATION_SHARE = 0.25
"""Share of the memory for pairs that validation pairs may take."""


@dataclass(frozen=True)
class MemoryPlan:
    """Sizes that streaming a store within `train.memory` allows."""

    buffer: int
    """Number of pairs from which the next batch is drawn."""
    validation: int
    """Number of utterances to validate on."""


def fits_in_memory(store: EmbeddingStore, settings: Train) -> bool:
    """Return True if the pairs of a store fit into `settings.memory`; otherwise they are streamed."""
    rows, draws, _, dim = store.shape
    return IN_MEMORY * 4 * rows * draws * _count_peak_vectors(store, settings) * dim <= settings.memory * GB


def plan_memory(store: EmbeddingStore, pairs: int, held: int, settings: Train) -> MemoryPlan:
    """Divide the memory between `pairs` training pairs, `held` held-out utterances, and everything in flight.

    Raise ConfigError if the memory is too small.
    """
    rows, draws, _, dim = store.shape
    vectors = USED * settings.memory * GB - PER_UTTERANCE * rows
    free = math.floor(vectors / (4 * _count_peak_vectors(store, settings) * dim)) - _count_in_flight(store, settings)
    validation = max(1, min(held, math.floor(VALIDATION_SHARE * free) // draws))
    buffer = free - validation * draws
    least = _find_least_buffer(store, settings)
    if buffer < least:
        raise ConfigError(
            f"train.memory: {settings.memory:g} GB is too little to stream {store.path}, whose shards have"
            f" {len(store.shards()[0])} rows; give {math.ceil(find_least_memory(store, settings) / 1e5) / 1e4:g} or"
            " more."
        )
    return MemoryPlan(min(buffer, max(pairs, least)), validation)


def find_least_memory(store: EmbeddingStore, settings: Train) -> int:
    """Return the minimum number of bytes that streaming a store takes."""
    rows, draws, _, dim = store.shape
    free = math.ceil((_find_least_buffer(store, settings) + draws) / (1 - VALIDATION_SHARE))
    vectors = 4 * _count_peak_vectors(store, settings) * dim * (free + _count_in_flight(store, settings))
    return math.ceil((vectors + PER_UTTERANCE * rows) / USED)


def _count_peak_vectors(store: EmbeddingStore, settings: Train) -> int:
    """Return the number of vectors of a pair, as read or as used, whichever is larger."""
    return max(store.shape[2], count_vectors(store, settings))


def _count_in_flight(store: EmbeddingStore, settings: Train) -> int:
    """Return the maximum number of pairs outside the buffer."""
    return IN_FLIGHT * len(store.shards()[0]) * store.shape[1] + PER_BATCH * settings.batch_size


def _find_least_buffer(store: EmbeddingStore, settings: Train) -> int:
    return max(MIXED * len(store.shards()[0]) * store.shape[1], settings.batch_size)
