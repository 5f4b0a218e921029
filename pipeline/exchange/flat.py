"""Vectors that lie in a file one after another, read in any order without keeping the file in memory."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


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
