"""HDF5 files of others: entries that lie within the file, and datasets that it really holds."""

import math
from typing import Any

import h5py
from h5py import h5d, h5l

MAX_RATIO = 1100
"""The highest ratio of a dataset's size to its compressed size in the file; that of deflate is at most 1,032."""


class UnsafeEntryError(ValueError):
    """An entry leads out of its file, or declares more than the file holds; the message says why and what to do."""


def open_entry(group: h5py.Group, name: str) -> Any:
    """Return an entry of a group: a group, or a dataset whose numbers are in the file.

    Links are not followed, because they, like external and virtual storage, may hand out any file of the reader.

    Raises:
        UnsafeEntryError: it is a link or is stored elsewhere, or its declared size is more than the file can hold.
        KeyError: it is missing or damaged; OSError and RuntimeError are raised for damage as well.
    """
    if group.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        raise UnsafeEntryError(
            f"{name!r} is a link to another place or file, which is not followed. Save a copy of its target instead."
        )
    entry = group[name]
    if isinstance(entry, h5py.Dataset):
        _check_storage(entry, name)
    return entry


def has_entry(group: h5py.Group, name: str) -> bool:
    """Return True if a group has an entry, whatever it leads to."""
    return bool(group.id.links.exists(name.encode()))


def _check_storage(dataset: h5py.Dataset, name: str) -> None:
    """Raise UnsafeEntryError unless a dataset is stored in its file, in as many bytes as its shape needs."""
    properties = dataset.id.get_create_plist()
    if properties.get_external_count() or properties.get_layout() == h5d.VIRTUAL:
        raise UnsafeEntryError(f"{name!r} is stored in other files, which are not read. Save its numbers in this file.")
    if dataset.shape is None:
        raise UnsafeEntryError(f"{name!r} is empty. Remove it.")
    needed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
    stored = dataset.id.get_storage_size() * (MAX_RATIO if properties.get_nfilters() else 1)
    if needed > stored:
        shape = " x ".join(f"{length:,}" for length in dataset.shape)
        raise UnsafeEntryError(
            f"{name!r} declares {shape} entries, {needed:,} bytes, but the file holds"
            f" {dataset.id.get_storage_size():,} for it. Copy or make the file again."
        )
