"""Feeds of training pairs: from memory where a store fits into it, else streamed from its shards in a shuffled order.

A pair is one crop of an utterance, see `pipeline.training.pairs`; prepared pairs are as the network sees them.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.train import Train
from pipeline.errors import ConfigError
from pipeline.model.seed_model import Pairs, SeedModel, prepare_pairs
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.training.pairs import pairs_of, vectors_in
from pipeline.training.preconditioner import Moments, fit_preconditioner
from pipeline.training.progress import Watch, watched
from pipeline.utils.prefetch import prefetch

GB = 10**9

IN_MEMORY = 4
"""The in-memory feed at its peak, in sizes of the store: the pairs, and three stages of their preparation."""
AHEAD = 2
"""Shards that are read before they are asked for."""
IN_FLIGHT = 8
"""Shards outside the buffer, at most: one being read (four of its size, as Zarr decodes it and failed rows are left
out), AHEAD that wait, one in hand, and one that the buffer takes before it gives."""
MIXED = 3
"""Shards that the buffer holds at least: fewer would hardly mix utterances that are neighbours in the store."""
PER_BATCH = 5
"""A batch, and the stages of its preparation."""
USED = 0.9
"""Of the memory given, what is planned with; the rest is for the gaps that an allocator leaves."""
PER_UTTERANCE = 16
"""Bytes of bookkeeping: what an utterance is for, and lists of them while that is decided."""
VALIDATION_SHARE = 0.25
"""Of the memory left for pairs, what the validation pairs may take."""

NONE, FIT, VALIDATE = 0, 1, 2


class BatchSource(Protocol):
    """Where batches come from."""

    pairs: int
    """Training pairs in an epoch."""
    validation: Tensor
    """Prepared pairs [P, views, D] to validate on."""
    validated: str
    """How many of the held-out utterances these are of; empty if all."""

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        """Yield every training pair once, prepared, in batches [B, views, D] in a new order; only the last is smaller.

        Close it when it is not used up.
        """
        ...


def open_batches(
    store: EmbeddingStore,
    held: NDArray[np.bool_],
    model: SeedModel,
    rng: np.random.Generator,
    watch: Watch | None = None,
    fit: bool = True,
) -> BatchSource:
    """Fit the model's preconditioner to the training pairs of a store, and return the feed of them.

    Args:
        store: embeddings [N, draws, views, D].
        held: which of its encoded rows [len(store.ok)] are held out for validation.
        model: its settings say how; the feed lives where the model does.
        rng: of the choice of validation pairs, where there is no memory for all.
        watch: told how far the first pass over a streamed store is.
        fit: whether the preconditioner is fitted, or stays as it is.

    Raises:
        StoreError: the store is damaged.
        ConfigError: `train.memory` is too small to stream the store.
        TrainingError: it does not have the noisy views that are asked for.
    """
    if fits(store, model.settings):
        return MemoryBatches.of(store, held, model, fit)
    return StreamedBatches(store, held, model, rng, watch, fit)


def fits(store: EmbeddingStore, settings: Train) -> bool:
    """Return whether the pairs of a store go into `settings.memory`; if not, they are streamed."""
    rows, draws, _, dim = store.shape
    return IN_MEMORY * 4 * rows * draws * _width(store, settings) * dim <= settings.memory * GB


class MemoryBatches:
    """All pairs prepared beforehand."""

    validated = ""

    def __init__(self, prepared: Tensor, validation: Tensor, batch_size: int) -> None:
        self.pairs, self.validation = len(prepared), validation
        self._prepared, self._size = prepared, batch_size

    @classmethod
    def of(cls, store: EmbeddingStore, held: NDArray[np.bool_], model: SeedModel, fit: bool = True) -> "MemoryBatches":
        """Read a store, and fit the model's preconditioner, if `fit`."""
        values = store.read()
        pairs, validation = (pairs_of(values[store.ok[chosen]], store, model.settings) for chosen in (~held, held))
        del values
        if fit:
            _set(model, *fit_preconditioner(model.settings.network.precondition, pairs[:, 0], pairs[:, 1:]))
        return cls(prepare_pairs(model, pairs, True), prepare_pairs(model, validation), model.settings.batch_size)

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        """See `BatchSource`."""
        order = torch.from_numpy(rng.permutation(self.pairs))
        for start in range(0, self.pairs, self._size):
            yield self._prepared[order[start : start + self._size]]


@dataclass(frozen=True)
class Budget:
    """How `train.memory` is shared out."""

    buffer: int
    """Pairs among which the next batch is drawn."""
    validation: int
    """Utterances to validate on."""

    @classmethod
    def of(cls, store: EmbeddingStore, pairs: int, held: int, settings: Train) -> "Budget":
        """Share the memory out among `pairs` training pairs, `held` held-out utterances, and all that is in flight.

        Raises:
            ConfigError: it is too small.
        """
        rows, draws, _, dim = store.shape
        vectors = USED * settings.memory * GB - PER_UTTERANCE * rows
        free = math.floor(vectors / (4 * _width(store, settings) * dim)) - _in_flight(store, settings)
        validation = max(1, min(held, math.floor(VALIDATION_SHARE * free) // draws))
        buffer = free - validation * draws
        least = _least_buffer(store, settings)
        if buffer < least:
            raise ConfigError(
                f"train.memory: {settings.memory:g} GB is too little to stream {store.path}, whose shards have"
                f" {len(store.shards()[0])} rows; give {math.ceil(needed(store, settings) / 1e5) / 1e4:g} or more."
            )
        return cls(min(buffer, max(pairs, least)), validation)


def needed(store: EmbeddingStore, settings: Train) -> int:
    """Return the bytes that it takes at least to stream a store."""
    rows, draws, _, dim = store.shape
    free = math.ceil((_least_buffer(store, settings) + draws) / (1 - VALIDATION_SHARE))
    vectors = 4 * _width(store, settings) * dim * (free + _in_flight(store, settings))
    return math.ceil((vectors + PER_UTTERANCE * rows) / USED)


class StreamedBatches:
    """Shards read in a shuffled order, ahead of need, into a buffer from which batches are drawn at random."""

    def __init__(
        self,
        store: EmbeddingStore,
        held: NDArray[np.bool_],
        model: SeedModel,
        rng: np.random.Generator,
        watch: Watch | None = None,
        fit: bool = True,
    ) -> None:
        """Pass over the store once: fit the preconditioner, if `fit`, and keep the validation pairs."""
        self._store, self._model, draws = store, model, store.shape[1]
        self._shape = (vectors_in(store, model.settings), store.dim)
        self._role = np.full(store.shape[0], NONE, dtype=np.uint8)  # a byte an utterance: there can be millions
        self._role[store.status == OK] = np.uint8(FIT) + held  # VALIDATE, if held
        self.pairs, self.validated = int(np.count_nonzero(~held)) * draws, ""
        self.budget = Budget.of(store, self.pairs, len(held) - self.pairs // draws, model.settings)
        rows = np.flatnonzero(self._role == VALIDATE)
        if self.budget.validation < len(rows):
            self.validated = f"{self.budget.validation} of {len(rows)} utterances used"
            self._role[rows] = NONE
            rows = rng.choice(rows, self.budget.validation, replace=False)
            self._role[rows] = VALIDATE
        self.validation = self._first_pass(len(rows) * draws, watch, fit)
        self._buffer: Pairs | None = None

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        """See `BatchSource`."""
        size, shards = self._model.settings.batch_size, self._shards(FIT)
        if self._buffer is None:  # kept for the next epoch, once it is there
            most = self.budget.buffer + max(map(len, shards)) * self._store.shape[1]
            self._buffer = np.empty((most, *self._shape), dtype=np.float32)
        buffer, filled = self._buffer, 0
        order = [shards[index] for index in rng.permutation(len(shards))]
        with closing(prefetch(lambda rows: self._read(rows)[0], order, AHEAD)) as parts:
            for part in parts:
                buffer[filled : filled + len(part)] = part
                filled += len(part)
                while filled > self.budget.buffer:
                    yield prepare_pairs(self._model, _draw(buffer, filled, size, rng), True)
                    filled -= size
        while filled:
            yield prepare_pairs(self._model, _draw(buffer, filled, min(size, filled), rng), True)
            filled -= min(size, filled)

    def _first_pass(self, count: int, watch: Watch | None, fit: bool) -> Tensor:
        """Fit the preconditioner, if `fit`, and return `count` prepared validation pairs."""
        model, kind = self._model, self._model.settings.network.precondition
        none = not fit or kind == "none"
        validation = np.empty((count, *self._shape), dtype=np.float32)
        moments, filled = Moments(self._store.shape[3], kind), 0
        shards = self._shards(*((VALIDATE,) if none else (FIT, VALIDATE)))
        with closing(prefetch(self._read, shards, AHEAD)) as parts:
            used = sum(int(np.count_nonzero(self._role[rows.start : rows.stop])) for rows in shards)
            total = used * self._store.shape[1]
            for pairs, held in watched(parts, lambda part: len(part[0]) + len(part[1]), total, 0, watch):
                validation[filled : filled + len(held)] = held
                filled += len(held)
                if not none:
                    moments.add(pairs[:, 0], pairs[:, 1:])
        if fit:
            _set(model, *moments.preconditioner())
        if model.mean.device.type != "cpu":
            return torch.cat([prepare_pairs(model, part) for part in _split(validation)])
        for part in _split(validation):  # in its place
            part[:] = prepare_pairs(model, part).numpy()
        return torch.from_numpy(validation)

    def _shards(self, *roles: int) -> list[range]:
        """Return the shards in which an utterance has one of the roles."""
        parts = ((rows, self._role[rows.start : rows.stop]) for rows in self._store.shards())
        return [rows for rows, part in parts if any((part == role).any() for role in roles)]

    def _read(self, rows: range) -> tuple[Pairs, Pairs]:
        """Return the training and the validation pairs of some rows."""
        values, role = self._store.read_rows(rows), self._role[rows.start : rows.stop]
        parts = (values, values[:0]) if (role == FIT).all() else (values[role == FIT], values[role == VALIDATE])
        fitted, validated = (pairs_of(part, self._store, self._model.settings) for part in parts)
        return fitted, validated


def _width(store: EmbeddingStore, settings: Train) -> int:
    """Return how many vectors a pair takes: as they are read, or as they are used."""
    return max(store.shape[2], vectors_in(store, settings))


def _in_flight(store: EmbeddingStore, settings: Train) -> int:
    """Return how many pairs there are outside the buffer, at most."""
    return IN_FLIGHT * len(store.shards()[0]) * store.shape[1] + PER_BATCH * settings.batch_size


def _least_buffer(store: EmbeddingStore, settings: Train) -> int:
    return max(MIXED * len(store.shards()[0]) * store.shape[1], settings.batch_size)


def _draw(buffer: Pairs, filled: int, size: int, rng: np.random.Generator) -> Pairs:
    """Return `size` random pairs of the first `filled`, and move pairs from the end into the gaps."""
    chosen = rng.choice(filled, size, replace=False)
    drawn: Pairs = buffer[chosen]
    left = filled - size
    stay = np.ones(size, dtype=bool)
    stay[chosen[chosen >= left] - left] = False
    buffer[chosen[chosen < left]] = buffer[left:filled][stay]
    return drawn


def _set(model: SeedModel, mean: NDArray[np.float64], matrix: NDArray[np.float64]) -> None:
    model.mean.copy_(torch.from_numpy(mean).float())
    model.matrix.copy_(torch.from_numpy(matrix).float())


def _split(pairs: Pairs, size: int = 1024) -> Iterator[Pairs]:
    return (pairs[start : start + size] for start in range(0, len(pairs), size))
