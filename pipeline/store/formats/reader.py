"""The reader of a file of embeddings: ids, and blocks of vectors in the same order, in bounded memory."""

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


class RowFile:
    """Rows [count, dim] that lie in a file from byte `offset` on."""

    def __init__(self, file: Path | IO[bytes], offset: int, dtype: np.dtype[Any], count: int, dim: int) -> None:
        self._file, self._offset, self._dtype, self.count, self.dim = file, offset, dtype, count, dim

    @classmethod
    def spool(cls, blocks: Iterable[NDArray[np.float32]], dim: int, folder: Path | None) -> "RowFile":
        """Copy blocks [n, dim] to a nameless file in `folder` that vanishes with the process."""
        file, count = tempfile.TemporaryFile(dir=folder), 0  # noqa: SIM115 (stays open)
        for block in blocks:
            np.ascontiguousarray(block).tofile(file)
            count += len(block)
        file.flush()
        rows = cls(file, 0, np.dtype(np.float32), count, dim)
        weakref.finalize(rows, file.close)
        return rows

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return consecutive rows [stop - start, dim], or fewer at the end of the file."""
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
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
            content = b"".join([os.pread(number, size, self._offset + row * size) for row in rows.tolist()])
        return np.frombuffer(content, self._dtype).reshape(-1, self.dim)

    def memory_map(self) -> NDArray[Any]:
        """Return all rows [count, dim] as an array backed by the file."""
        return np.memmap(self._file, self._dtype, "r+", self._offset, (self.count, self.dim))

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return self._file.open("rb") if isinstance(self._file, Path) else nullcontext(self._file)


BLOCK_BYTES = 2**23
"""Approximate size of a block of vectors as float32."""


MAX_RATIO = 1100
"""Numbers per byte of a file above which its size is not credible; deflate packs at most 1,032 bytes into one."""


@dataclass(frozen=True)
class VectorBlock:
    """Consecutive rows of a file."""

    values: NDArray[np.floating[Any]]
    """Vectors [rows, dim]."""
    misshapen: Mapping[int, str] = field(default_factory=dict)
    """Rows that are not vectors of `dim` numbers, with a description; NaN in `values`."""
    rounded: bool = False
    """True if `values` are float32 rounded from float64."""


@dataclass(frozen=True)
class VectorReader:
    """A file of embeddings, or several that are read one after another."""

    path: str
    """Path or pattern for messages."""
    dim: int
    dtype: np.dtype[Any]
    """The type of the numbers in the file."""
    ids: Callable[[], Iterator[list[str]]]
    """Yields all ids in row order, in lists of any length."""
    blocks: Callable[[], Iterator[VectorBlock]]
    """Yields all vectors in row order."""
    row_file: RowFile | None = None
    """The vectors in the file, if they can be read in any order."""


@dataclass(frozen=True)
class VectorTable:
    """The content to write to a file of embeddings."""

    ids: Sequence[str]
    dim: int
    blocks: Callable[[], Iterator[tuple[Sequence[str], NDArray[np.float32]]]]
    """Yields ids [n] and vectors [n, dim], all in row order."""


def rows_per_block(dim: int) -> int:
    """Return the number of vectors in a block."""
    return max(1, BLOCK_BYTES // (4 * dim))


def check_floating(path: object, dtype: np.dtype[Any], dim: int) -> None:
    """Raise ExchangeError unless the type and length of vectors suit embeddings."""
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ExchangeError(f"{path}: holds numbers of type {dtype}; embeddings are float16, float32 or float64.")
    if dim == 0:
        raise ExchangeError(f"{path}: holds vectors of no numbers. Check how it was made.")


def check_declared_size(path: Path, count: int, dim: int) -> None:
    """Raise ExchangeError if a file declares more ids or numbers than its bytes can hold, even compressed."""
    size = path.stat().st_size
    if count > size or count * dim > MAX_RATIO * size:  # distinct ids take a byte each at least
        raise ExchangeError(
            f"{path}: declares {count:,} vectors of {dim:,} numbers in {size:,} bytes, which cannot hold them. Copy or"
            " make it again."
        )


def open_keyed(
    path: Path,
    names: Callable[[], Iterator[str]],
    vectors: Callable[[], Iterator[tuple[str, NDArray[Any]]]],
    expected: str = "Give a vector for each id",
) -> VectorReader:
    """Return the reader of a file that holds each vector separately, under its id.

    Raise ExchangeError with the advice `expected` if there are no vectors, or if the first entry is not a vector.
    """
    first = next(vectors(), None)
    if first is None:
        raise ExchangeError(f"{path}: holds no vectors. Check how it was made.")
    vector = _squeeze_row(first[1])
    if vector.ndim != 1:
        raise ExchangeError(f"{path}: {first[0]} is not a vector: its shape is {list(vector.shape)}. {expected}.")
    check_floating(path, vector.dtype, len(vector))
    dim = len(vector)
    return VectorReader(
        str(path), dim, vector.dtype, lambda: batch_ids(names()), lambda: stack_vectors(path, dim, vectors())
    )


def stack_vectors(path: object, dim: int, vectors: Iterable[tuple[str, NDArray[Any] | None]]) -> Iterator[VectorBlock]:
    """Stack single vectors, which come with their ids, to blocks; None is a row without a vector."""
    size, count = rows_per_block(dim), 0
    values, misshapen, rounded = np.empty((size, dim), np.float32), dict[int, str](), False
    for name, given in vectors:
        vector = _squeeze_row(np.empty(0, np.float32) if given is None else given)
        if vector.shape == (dim,) and vector.dtype.kind != "f":
            check_floating(f"{path}: {name}", vector.dtype, dim)
        if vector.shape == (dim,):
            with np.errstate(over="ignore"):  # an overflow becomes infinite, which is reported
                values[count] = vector
            rounded |= vector.dtype.itemsize > 4
        else:
            values[count] = np.nan
            misshapen[count] = f"{name} of {'x'.join(map(str, vector.shape))}"
        count += 1
        if count == size:
            yield VectorBlock(values, misshapen, rounded)
            values, misshapen, count = np.empty((size, dim), np.float32), {}, 0
    if count:
        yield VectorBlock(values[:count], misshapen, rounded)


def batch_ids(names: Iterator[str], size: int = 65536) -> Iterator[list[str]]:
    """Yield ids in lists of `size`."""
    while batch := list(islice(names, size)):
        yield batch


def encoding_error(path: object, error: Exception) -> ExchangeError:
    """Return the error for ids that are not UTF-8."""
    return ExchangeError(f"{path}: ids are not UTF-8 text ({one_line(error)}). Write them as UTF-8.")


def join_readers(sources: Sequence[VectorReader], path: str) -> VectorReader:
    """Return one reader for several files; raise ExchangeError if their vectors have different lengths."""
    if len(sources) == 1:
        return sources[0]
    first = sources[0]
    for other in sources[1:]:
        if other.dim != first.dim:
            ours = f"{first.path} has {first.dim}"
            raise ExchangeError(f"{other.path}: vectors of {other.dim} numbers, but {ours}. Give files of one encoder.")
    return VectorReader(
        path,
        first.dim,
        max((source.dtype for source in sources), key=lambda dtype: dtype.itemsize),
        lambda: (names for source in sources for names in source.ids()),
        lambda: (block for source in sources for block in source.blocks()),
    )


def _squeeze_row(vector: NDArray[Any]) -> NDArray[Any]:
    """Return a matrix of one row as a vector, and other arrays unchanged."""
    vector = np.asarray(vector)
    return vector[0] if vector.ndim == 2 and len(vector) == 1 else vector
