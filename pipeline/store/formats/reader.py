"""What a file of embeddings gives: ids, and blocks of vectors in the same order, so that memory is bounded."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, one_line


class Flat:
    """Rows [count, dim] of a file, from `offset` bytes on."""

    def __init__(self, file: Path | IO[bytes], offset: int, dtype: np.dtype[Any], count: int, dim: int) -> None:
        self._file, self._offset, self._dtype, self.count, self.dim = file, offset, dtype, count, dim

    @classmethod
    def of(cls, blocks: Iterable[NDArray[np.float32]], dim: int, folder: Path | None) -> "Flat":
        """Copy blocks [n, dim] to a file in `folder` that has no name, and is gone with the process."""
        file, count = tempfile.TemporaryFile(dir=folder), 0  # noqa: SIM115 (stays open)
        for block in blocks:
            np.ascontiguousarray(block).tofile(file)
            count += len(block)
        file.flush()
        flat = cls(file, 0, np.dtype(np.float32), count, dim)
        weakref.finalize(flat, file.close)
        return flat

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return neighbouring rows [stop - start, dim]; fewer where the file ends."""
        with self._open() as file:
            file.seek(self._offset + start * self.dim * self._dtype.itemsize)
            numbers = np.fromfile(file, self._dtype, (min(stop, self.count) - start) * self.dim)
        return numbers[: len(numbers) // self.dim * self.dim].reshape(-1, self.dim)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return any rows [len(rows), dim]."""
        size = self.dim * self._dtype.itemsize
        with self._open() as file:
            number = file.fileno()
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)  # neighbours are not wanted
            found = b"".join([os.pread(number, size, self._offset + row * size) for row in rows.tolist()])
        return np.frombuffer(found, self._dtype).reshape(-1, self.dim)

    def mapped(self) -> NDArray[Any]:
        """Return all rows [count, dim] as an array whose memory is the file."""
        return np.memmap(self._file, self._dtype, "r+", self._offset, (self.count, self.dim))

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return self._file.open("rb") if isinstance(self._file, Path) else nullcontext(self._file)


BLOCK_BYTES = 2**23
"""About what a block of vectors takes as float32."""

Values = NDArray[np.floating[Any]]
"""Vectors [rows, dim]."""


@dataclass(frozen=True)
class Block:
    """Some rows of a file."""

    values: Values
    odd: Mapping[int, str] = field(default_factory=dict)
    """Which of the rows are no vectors of `dim` numbers, and what they are; NaN in `values`."""
    rounded: bool = False
    """Whether `values` are float32 of what was float64."""


@dataclass(frozen=True)
class VectorReader:
    """A file of embeddings, or several that are read one after another."""

    path: str
    """For messages."""
    dim: int
    dtype: np.dtype[Any]
    """Of the numbers in the file."""
    ids: Callable[[], Iterator[list[str]]]
    """Yields all ids in row order, some at a time, however that is best read."""
    blocks: Callable[[], Iterator[Block]]
    """Yields all vectors in row order."""
    flat: Flat | None = None
    """The vectors, where they lie in the file as they are and can be read in any order."""


@dataclass(frozen=True)
class VectorTable:
    """What is written to a file of embeddings."""

    ids: Sequence[str]
    dim: int
    blocks: Callable[[], Iterator[tuple[Sequence[str], NDArray[np.float32]]]]
    """Yields ids [n] and vectors [n, dim], all in row order."""


def rows_of(dim: int) -> int:
    """Return how many vectors make a block."""
    return max(1, BLOCK_BYTES // (4 * dim))


def check_floating(path: object, dtype: np.dtype[Any], dim: int) -> None:
    """Raise ExchangeError unless vectors of so many numbers of that type are embeddings."""
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ExchangeError(f"{path}: holds numbers of type {dtype}; embeddings are float16, float32 or float64.")
    if dim == 0:
        raise ExchangeError(f"{path}: holds vectors of no numbers. Check what it was made with.")


def keyed(
    path: Path,
    names: Callable[[], Iterator[str]],
    vectors: Callable[[], Iterator[tuple[str, NDArray[Any]]]],
    expected: str = "Give a vector for each id",
) -> VectorReader:
    """Return the source of a file that holds each vector by itself, under its id.

    Args:
        path: of the file.
        names: yields the ids.
        vectors: yields them again, with their vectors.
        expected: what to do about a file that is otherwise.

    Raises:
        ExchangeError: there is none, or the first is no vector.
    """
    first = next(vectors(), None)
    if first is None:
        raise ExchangeError(f"{path}: holds no vectors. Check what it was made with.")
    vector = _squeezed(first[1])
    if vector.ndim != 1:
        raise ExchangeError(f"{path}: {first[0]} is no vector, but of shape {list(vector.shape)}. {expected}.")
    check_floating(path, vector.dtype, len(vector))
    dim = len(vector)
    return VectorReader(str(path), dim, vector.dtype, lambda: in_lists(names()), lambda: stacked(path, dim, vectors()))


def stacked(path: object, dim: int, vectors: Iterable[tuple[str, NDArray[Any] | None]]) -> Iterator[Block]:
    """Yield blocks of vectors that come one by one, with their ids; None is a row without one."""
    size, count = rows_of(dim), 0
    values, odd, rounded = np.empty((size, dim), np.float32), dict[int, str](), False
    for name, given in vectors:
        vector = _squeezed(np.empty(0, np.float32) if given is None else given)
        if vector.shape == (dim,) and vector.dtype.kind != "f":
            check_floating(f"{path}: {name}", vector.dtype, dim)
        if vector.shape == (dim,):
            with np.errstate(over="ignore"):  # becomes infinite, which is reported
                values[count] = vector
            rounded |= vector.dtype.itemsize > 4
        else:
            values[count] = np.nan
            odd[count] = f"{name} of {'x'.join(map(str, vector.shape))}"
        count += 1
        if count == size:
            yield Block(values, odd, rounded)
            values, odd, count = np.empty((size, dim), np.float32), {}, 0
    if count:
        yield Block(values[:count], odd, rounded)


def in_lists(names: Iterator[str], size: int = 65536) -> Iterator[list[str]]:
    """Yield names some at a time."""
    while part := list(islice(names, size)):
        yield part


def not_text(path: object, error: Exception) -> ExchangeError:
    """Return what is said of a file whose ids are bytes that are no text."""
    return ExchangeError(f"{path}: ids are no text in UTF-8 ({one_line(error)}). Write them as such.")


def joined(sources: Sequence[VectorReader], path: str) -> VectorReader:
    """Return several files as one, in turn.

    Raises:
        ExchangeError: their vectors are of different lengths.
    """
    if len(sources) == 1:
        return sources[0]
    first = sources[0]
    for other in sources[1:]:
        if other.dim != first.dim:
            raise ExchangeError(
                f"{other.path}: vectors of {other.dim} numbers, but {first.path} has {first.dim}. Give files of one"
                " encoder."
            )
    return VectorReader(
        path,
        first.dim,
        max((source.dtype for source in sources), key=lambda dtype: dtype.itemsize),
        lambda: (names for source in sources for names in source.ids()),
        lambda: (block for source in sources for block in source.blocks()),
    )


def _squeezed(vector: NDArray[Any]) -> NDArray[Any]:
    """Return a matrix of one row as a vector."""
    vector = np.asarray(vector)
    return vector[0] if vector.ndim == 2 and len(vector) == 1 else vector
