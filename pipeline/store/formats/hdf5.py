"""HDF5: vectors [N, dim] and ids [N], or one dataset per id, as hyperion writes."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, one_line
from pipeline.store.formats import columns, reader
from pipeline.utils.atomic import replacing
from pipeline.utils.hdf5 import UnsafeEntryError, has_entry, open_entry
from pipeline.utils.shortage import raise_shortage

TABLE, IDS = "embeddings", "ids"
"""Names of the datasets in files that we write."""

COMPRESSED = "data_format"
"""The attribute of a dataset that hyperion has compressed."""

_LOOKED_AT = 64
"""Number of entries that show the layout of a file."""

_IDS, _LONGEST_ID = 4096, 65_536
"""Number of ids that are read at once, and the longest id in characters."""

_EXPECTED = f"Save {TABLE!r} [vectors, numbers] and {IDS!r} [vectors] outside any group, or one vector per id"


def open_reader(path: Path, form: str, ids: Path | None) -> reader.VectorReader:
    """Open an HDF5 file; see `registry.Format`."""
    try:
        with h5py.File(path) as file:
            # The first entries show the layout; a file with one dataset per id may have millions.
            some = [*islice(file, _LOOKED_AT), *(name for name in (TABLE, IDS) if has_entry(file, name))]
            items = {name: _item(path, file, name) for name in some}
            datasets = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
            tables = [name for name, item in datasets.items() if item.ndim == 2 and item.dtype.kind == "f"]
            texts = [name for name, item in datasets.items() if item.ndim == 1 and h5py.check_string_dtype(item.dtype)]
            if not texts and IDS in datasets and datasets[IDS].ndim == 1 and datasets[IDS].dtype.kind in "iu":
                texts = [IDS]
            separate_ids = ids or (len(tables) == 1 and columns.find_sidecar(path))
            if form == "hyperion" or not (texts or separate_ids):
                return reader.open_keyed(path, lambda: _read_names(path), lambda: _read_vectors(path), _EXPECTED)
            table = columns.choose_name(path, "datasets of vectors", tables, TABLE)
            if texts and ids:
                raise columns.redundant_ids_error(path, f"in {', '.join(texts[:3])}")
            text = None if not texts else columns.choose_name(path, "datasets of ids", texts, IDS)
            (count, dim), dtype = datasets[table].shape, datasets[table].dtype
            if text and len(datasets[text]) != count:
                raise ExchangeError(f"{path}: {len(datasets[text]):,} ids for {count:,} vectors. Make the file again.")
    except (OSError, RuntimeError) as error:  # RuntimeError: libhdf5 cannot list the entries
        raise_shortage(error, path)
        raise ExchangeError(f"{path}: not a readable HDF5 file ({one_line(error)}). Copy or make it again.") from error
    reader.check_floating(path, dtype, dim)

    def names() -> Iterator[list[str]]:
        if text is None:
            yield from columns.read_ids(path, columns.find_ids(path, ids), count)
            return
        with h5py.File(path) as file:
            for start in range(0, count, _IDS):
                try:
                    yield [_text(path, name) for name in file[text][start : start + _IDS]]
                except UnicodeDecodeError as error:
                    raise reader.encoding_error(path, error) from error
                except OSError as error:
                    raise _damage_error(path, error) from error

    def blocks() -> Iterator[reader.VectorBlock]:
        with h5py.File(path) as file:
            for start in range(0, count, reader.rows_per_block(dim)):
                try:
                    yield reader.VectorBlock(file[table][start : start + reader.rows_per_block(dim)])
                except OSError as error:
                    raise _damage_error(path, error) from error

    return reader.VectorReader(str(path), dim, dtype, names, blocks)


def write_table(path: Path, form: str, vectors: reader.VectorTable) -> None:
    """Write `embeddings` [N, dim] and `ids` [N], or, as `hyperion`, each vector under its id.

    Raise ExchangeError if an id cannot be the name of a dataset.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        if form == "hyperion":
            for names, block in vectors.blocks():
                for name, vector in zip(names, block, strict=True):
                    _check_key(path, name)
                    try:
                        file.create_dataset(name, data=vector)
                    except (TypeError, ValueError, OSError, RuntimeError) as error:  # such as `a/b` beside `a`
                        reason = f"cannot be the name of a dataset ({one_line(error)})"
                        raise ExchangeError(f"{path}: id {name!r} {reason}. Write hdf5.") from error
            return
        count, start = len(vectors.ids), 0
        values = file.create_dataset(TABLE, (count, vectors.dim), "f4")
        texts = file.create_dataset(IDS, (count,), h5py.string_dtype())
        for names, block in vectors.blocks():
            for name in names:
                if "\0" in name:
                    raise _nul_error(path, name)
            values[start : start + len(block)] = block
            texts[start : start + len(block)] = np.array(names, dtype=object)
            start += len(block)


def _datasets(
    path: Path, group: h5py.Group, prefix: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the datasets below a group with their paths; an id with slashes makes groups.

    Each group is entered once: groups that hold the same one several times would have exponentially many paths.
    """
    seen = set() if seen is None else seen
    seen.add(_address(group))
    for name in _entries(path, group):
        item = _item(path, group, name)
        if isinstance(item, h5py.Group):
            if _address(item) in seen:
                raise ExchangeError(f"{path}: {prefix}{name} is a group that is there by another name. Remove one.")
            yield from _datasets(path, item, f"{prefix}{name}/", seen)
        elif isinstance(item, h5py.Dataset):
            yield f"{prefix}{name}", item


def _address(group: h5py.Group) -> int:
    """Return the position of a group in its file, which no other object has."""
    return int(h5py.h5o.get_info(group.id).addr)


def _entries(path: Path, group: h5py.Group) -> Iterator[str]:
    try:
        yield from group
    except RuntimeError as error:
        raise _damage_error(path, error) from error


def _item(path: Path, group: h5py.Group, name: str | bytes) -> Any:
    """Return an entry of a group."""
    if isinstance(name, bytes):  # h5py returns names that are not UTF-8 as bytes
        raise ExchangeError(f"{path}: {name!r}, the name of an entry, is not UTF-8 text. Rename it.")
    try:
        return open_entry(group, name)
    except UnsafeEntryError as error:
        raise ExchangeError(f"{path}: {error}") from error
    except (KeyError, OSError, RuntimeError) as error:
        raise_shortage(error, path)
        raise ExchangeError(
            f"{path}: {name!r} cannot be read ({one_line(error)}). Copy or make the file again."
        ) from error


def _read_names(path: Path) -> Iterator[str]:
    with h5py.File(path) as file:
        for name, _ in _datasets(path, file):
            yield name


def _read_vectors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with h5py.File(path) as file:
        for name, dataset in _datasets(path, file):
            if COMPRESSED in dataset.attrs:
                raise ExchangeError(f"{path}: {name} is compressed like a Kaldi matrix. Write it uncompressed.")
            reader.check_floating(f"{path}: {name}", dataset.dtype, 1)
            try:
                yield name, dataset[()]
            except OSError as error:
                raise _damage_error(path, error) from error


def _text(path: Path, name: bytes | str | np.integer[Any]) -> str:
    text = name.decode("utf-8") if isinstance(name, bytes) else str(name)
    if len(text) > _LONGEST_ID:  # a small file may repeat a long text without end
        raise ExchangeError(
            f"{path}: an id of {len(text):,} characters ({text[:40]!r}…). Give ids of up to {_LONGEST_ID:,}."
        )
    return text


def _check_key(path: Path, name: str) -> None:
    parts = name.split("/")
    if "\0" in name:
        raise _nul_error(path, name)
    if "" in parts or "." in parts:
        raise ExchangeError(f"{path}: id {name!r} cannot be the name of a dataset. Write the format hdf5 instead.")


def _nul_error(path: Path, name: str) -> ExchangeError:
    return ExchangeError(f"{path}: id {name!r} has a NUL, which HDF5 cannot hold. Use .parquet.")


def _damage_error(path: Path, error: Exception) -> ExchangeError:
    raise_shortage(error, path)
    return ExchangeError(f"{path}: damaged ({one_line(error)}). Copy or make it again.")
