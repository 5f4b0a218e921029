"""Access of Zarr to stores in local folders and, by fsspec, in remote places."""

import asyncio
import atexit
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import Any, Literal

import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.storage import FsspecStore, LocalStore

from pipeline.errors import PlaceError, StoreError
from pipeline.utils.paths import Place, remote_errors, remove_file, remove_folder, replace_folder, write_bytes


def open_group(place: Place, mode: Literal["r", "r+"]) -> zarr.Group:
    """Open the group of a store; any use of it may raise PlaceError, if a remote place does not answer or refuses."""
    if isinstance(place, Path):
        return zarr.open_group(_LocalStore(place, read_only=mode == "r"), mode=mode)
    with remote_errors(place):
        store = _RemoteStore.from_url(str(place), storage_options=dict(place.storage_options), read_only=mode == "r")
    return zarr.open_group(store, mode=mode, zarr_format=3)


def publish(store: Place, target: Place, mark: Place) -> None:
    """Copy a finished store from its journal to its final place within a remote place, without downloading it.

    While `mark` exists, the content of `target` is known to be the rest of a store. Repeating this is harmless. Raise
    PlaceError if the remote place does not answer or refuses.
    """
    assert not isinstance(store, Path)
    assert not isinstance(target, Path)
    write_bytes(mark, b"")
    replace_folder(store, target)
    remove_file(mark)


def discard(store: Place, journal: Place) -> None:
    """Remove the journal of a published store as far as possible."""
    with suppress(PlaceError):
        remove_folder(store)  # its zarr.json first, so that the rest is never taken for finished work
        remove_folder(journal)


class _LocalStore(LocalStore):
    """Files below a folder. A pipe or a device in place of one raises StoreError: reading it might never end."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        path = self.root / key
        if path.exists() and not path.is_file() and not path.is_dir():
            raise StoreError(f"{path}: is no regular file, so this is not a whole embedding store. Extract it again.")
        return await super().get(key, prototype, byte_range)


class _RemoteStore(FsspecStore):
    """Objects below a URL. Failed requests raise PlaceError, so they are not taken for damage of the store."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        with self._request(key):
            return await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        with self._request(key):
            await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        with self._request(key):
            await super().delete(key)

    @contextmanager
    def _request(self, key: str) -> Iterator[None]:
        task = asyncio.current_task()
        _running.add(task)
        try:
            with remote_errors(f"{self.fs.unstrip_protocol(self.path)}/{key}"):
                yield
        finally:
            _running.discard(task)


_running: set["asyncio.Task[Any] | None"] = set()


@atexit.register
def _cancel_requests() -> None:
    """Cancel requests that still run after another one failed, so that Python does not report them at exit."""
    for task in list(_running):
        if task:
            task.get_loop().call_soon_threadsafe(task.cancel)
    for _ in range(100):  # wait at most one second
        if _running:
            sleep(0.01)
