"""Batches of training pairs: from memory if a store fits into it, otherwise streamed from its shards in random order.

A pair is one crop of an utterance, see `pipeline.training.pairs`. Prepared pairs are preconditioned and scaled. An
epoch uses all crops of an utterance, or one at random (`train.epoch_crops`).
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.train import Train
from pipeline.model.seed_model import Pairs, SeedModel, prepare_pairs
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.zeros import require_directions
from pipeline.training.aligned_stores import read_domains
from pipeline.training.memory import AHEAD, fits_in_memory, plan_memory
from pipeline.training.pairs import build_pairs, count_vectors
from pipeline.training.preconditioner import Moments, fit_preconditioner
from pipeline.training.progress import OnBatch, report_progress
from pipeline.utils.prefetch import prefetch

NONE, FIT, VALIDATE = 0, 1, 2
"""The roles of an utterance in a streamed store."""


class BatchSource(Protocol):
    """A source of training batches and validation pairs."""

    pairs: int
    """Number of training pairs in an epoch."""
    validation: Tensor
    """Prepared pairs [P, views, D] to validate on."""
    validated: str
    """The number of held-out utterances that `validation` uses, as text; empty if all."""

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        """Yield the training pairs of an epoch, prepared, in batches [B, views, D] in random order.

        The last batch may be smaller, unless `train.drop_last` leaves it out. Close the generator if it is not
        exhausted.
        """
        ...


def open_batches(
    store: EmbeddingStore,
    held: NDArray[np.bool_],
    model: SeedModel,
    rng: np.random.Generator,
    on_batch: OnBatch | None = None,
    fit: bool = True,
) -> BatchSource:
    """Fit the model's preconditioner to the training pairs of a store, and return a source of batches.

    Args:
        store: embeddings [N, draws, views, D].
        held: mask [len(store.ok)] of the encoded rows that are held out for validation.
        model: model to train; it gives the settings and the device.
        rng: random numbers for the choice of validation pairs, if memory does not hold all.
        on_batch: called during the first pass over a streamed store.
        fit: fit the preconditioner; False leaves it as it is.

    Raises:
        StoreError: the store is damaged, or holds a vector of zeros.
        ConfigError: `train.memory` is too small to stream the store.
        TrainingError: the store does not have the configured noisy views.
    """
    if fits_in_memory(store, model.settings):
        return MemoryBatches.read(store, held, model, fit)
    return StreamedBatches(store, held, model, rng, on_batch, fit)


class MemoryBatches:
    """Batches of pairs that are all prepared in advance."""

    validated = ""

    def __init__(self, prepared: Tensor, validation: Tensor, settings: Train, draws: int) -> None:
        """Args: prepared, validation: prepared pairs, the `draws` crops of each utterance together."""
        self.pairs, self.validation = _count_pairs(len(prepared) // draws, draws, settings), validation
        self._prepared, self._size, self._draws = prepared, settings.batch_size, draws
        self._one = settings.epoch_crops == "one"

    @classmethod
    def read(
        cls, store: EmbeddingStore, held: NDArray[np.bool_], model: SeedModel, fit: bool = True
    ) -> "MemoryBatches":
        """Read a store, and fit the model's preconditioner if `fit`."""
        values = store.read()
        _check_directions(store, range(len(values)), values)
        pairs, validation = (build_pairs(values[store.ok[chosen]], store, model.settings) for chosen in (~held, held))
        del values
        if fit:
            kind, domains = model.settings.network.precondition, read_domains(store)[store.ok[~held]]
            each = np.repeat(domains, store.shape[1])
            _set_preconditioner(model, *fit_preconditioner(kind, pairs[:, 0], pairs[:, 1:], each))
        prepared, validated = prepare_pairs(model, pairs, True), prepare_pairs(model, validation)
        return cls(prepared, validated, model.settings, store.shape[1])

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        """See `BatchSource`."""
        if self._one:
            chosen = _choose_crops(len(self._prepared), self._draws, rng)
            order = torch.from_numpy(chosen[rng.permutation(len(chosen))])
        else:
            order = torch.from_numpy(rng.permutation(len(self._prepared)))
        for start in range(0, self.pairs, self._size):
            yield self._prepared[order[start : min(start + self._size, self.pairs)]]


class StreamedBatches:
    """Batches drawn at random from a buffer, which prefetched shards fill in random order."""

    def __init__(
        self,
        store: EmbeddingStore,
        held: NDArray[np.bool_],
        model: SeedModel,
        rng: np.random.Generator,
        on_batch: OnBatch | None = None,
        fit: bool = True,
    ) -> None:
        """Pass over the store once, to fit the preconditioner if `fit` and to keep the validation pairs."""
        self._store, self._model, draws = store, model, store.shape[1]
        self._shape = (count_vectors(store, model.settings), store.dim)
        self._role = np.full(store.shape[0], NONE, dtype=np.uint8)  # a byte per utterance; there can be millions
        self._role[store.status == OK] = np.uint8(FIT) + held  # VALIDATE if held
        fitted = int(np.count_nonzero(~held))
        self.pairs, self.validated = _count_pairs(fitted, draws, model.settings), ""
        self.plan = plan_memory(store, fitted * draws, len(held) - fitted, model.settings)
        rows = np.flatnonzero(self._role == VALIDATE)
        if self.plan.validation < len(rows):
            self.validated = f"{self.plan.validation} of {len(rows)} utterances used"
            self._role[rows] = NONE
            rows = rng.choice(rows, self.plan.validation, replace=False)
            self._role[rows] = VALIDATE
        self.validation = self._prepare(len(rows) * draws, on_batch, fit)
        self._buffer: Pairs | None = None

    def epoch(self, rng: np.random.Generator) -> Generator[Tensor, None, None]:
        """See `BatchSource`."""
        settings, shards, draws = self._model.settings, self._list_shards(FIT), self._store.shape[1]
        size, least = settings.batch_size, settings.batch_size if settings.drop_last else 1
        if self._buffer is None:  # kept for the next epoch
            capacity = self.plan.buffer + max(map(len, shards)) * draws
            self._buffer = np.empty((capacity, *self._shape), dtype=np.float32)
        buffer, filled = self._buffer, 0
        order = [shards[index] for index in rng.permutation(len(shards))]
        with closing(prefetch(lambda rows: self._read(rows)[0], order, AHEAD)) as parts:
            for part in parts:
                if settings.epoch_crops == "one":
                    part = part[_choose_crops(len(part), draws, rng)]
                buffer[filled : filled + len(part)] = part
                filled += len(part)
                while filled > self.plan.buffer:
                    yield prepare_pairs(self._model, _draw(buffer, filled, size, rng), True)
                    filled -= size
        while filled >= least:
            yield prepare_pairs(self._model, _draw(buffer, filled, min(size, filled), rng), True)
            filled -= min(size, filled)

    def _prepare(self, count: int, on_batch: OnBatch | None, fit: bool) -> Tensor:
        """Fit the preconditioner if `fit`, and return `count` prepared validation pairs."""
        model, kind = self._model, self._model.settings.network.precondition
        needs_moments = fit and kind != "none"
        validation = np.empty((count, *self._shape), dtype=np.float32)
        moments, filled = Moments(self._store.shape[3], kind), 0
        shards = self._list_shards(*((FIT, VALIDATE) if needs_moments else (VALIDATE,)))
        domains = read_domains(self._store)
        with closing(prefetch(self._read, shards, AHEAD)) as parts:
            used = sum(int(np.count_nonzero(self._role[rows.start : rows.stop])) for rows in shards)
            total = used * self._store.shape[1]
            read = report_progress(parts, lambda part: len(part[0]) + len(part[1]), total, 0, on_batch)
            for rows, (pairs, held) in zip(shards, read, strict=True):
                validation[filled : filled + len(held)] = held
                filled += len(held)
                if needs_moments:
                    own = domains[rows.start : rows.stop][self._role[rows.start : rows.stop] == FIT]
                    moments.add(pairs[:, 0], pairs[:, 1:], np.repeat(own, self._store.shape[1]))
        if fit:
            _set_preconditioner(model, *moments.solve())
        if model.mean.device.type != "cpu":
            return torch.cat([prepare_pairs(model, part) for part in _split(validation)])
        for part in _split(validation):  # in place
            part[:] = prepare_pairs(model, part).numpy()
        return torch.from_numpy(validation)

    def _list_shards(self, *roles: int) -> list[range]:
        """Return the shards that have an utterance in one of the roles."""
        parts = ((rows, self._role[rows.start : rows.stop]) for rows in self._store.shards())
        return [rows for rows, part in parts if any((part == role).any() for role in roles)]

    def _read(self, rows: range) -> tuple[Pairs, Pairs]:
        """Return the training pairs and the validation pairs of some rows."""
        values, role = self._store.read_rows(rows), self._role[rows.start : rows.stop]
        _check_directions(self._store, rows, values)
        parts = (values, values[:0]) if (role == FIT).all() else (values[role == FIT], values[role == VALIDATE])
        fitted, validated = (build_pairs(part, self._store, self._model.settings) for part in parts)
        return fitted, validated


def _count_pairs(utterances: int, draws: int, settings: Train) -> int:
    """Return the number of pairs in an epoch, from the numbers of training utterances and of crops of each."""
    pairs = utterances * (1 if settings.epoch_crops == "one" else draws)
    return pairs - pairs % settings.batch_size * settings.drop_last


def _choose_crops(pairs: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one of the `draws` consecutive pairs of each utterance, and return their numbers among all pairs."""
    starts = np.arange(0, pairs, draws)
    return starts + rng.integers(draws, size=len(starts))


def _check_directions(store: EmbeddingStore, rows: range, values: NDArray[np.float32]) -> None:
    """Raise StoreError if a store on disk holds a vector of zeros; in arrays, scikit-learn's checks expect them."""
    if store.entry is not None:
        require_directions(store, rows, values)  # failed rows are NaN


def _draw(buffer: Pairs, filled: int, size: int, rng: np.random.Generator) -> Pairs:
    """Return `size` random pairs of the first `filled`, and fill the gaps with pairs from the end."""
    chosen = rng.choice(filled, size, replace=False)
    drawn: Pairs = buffer[chosen]
    left = filled - size
    stay = np.ones(size, dtype=bool)
    stay[chosen[chosen >= left] - left] = False
    buffer[chosen[chosen < left]] = buffer[left:filled][stay]
    return drawn


def _set_preconditioner(model: SeedModel, mean: NDArray[np.float64], matrix: NDArray[np.float64]) -> None:
    model.mean.copy_(torch.from_numpy(mean).float())
    model.matrix.copy_(torch.from_numpy(matrix).float())


def _split(pairs: Pairs, size: int = 1024) -> Iterator[Pairs]:
    return (pairs[start : start + size] for start in range(0, len(pairs), size))
