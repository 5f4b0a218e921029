"""NumPy: `.npy` with ids in a text file beside it, and `.npz` with both or with one array per id."""

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, ResourceError, one_line
from pipeline.store.formats import columns, reader
from pipeline.utils.atomic import replacing
from pipeline.utils.shortage import raise_shortage

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, True for an array in column order, and type."""

_HEADER_ERRORS = (ValueError, SyntaxError, TokenError, TypeError, AttributeError, KeyError, RecursionError)
"""Errors of NumPy's for a damaged header, which is the text of a Python dictionary."""

_EXPECTED = "Save arrays 'embeddings' [vectors, numbers] and 'ids' [vectors], or one vector per id"


def open_reader(path: Path, form: str, ids: Path | None) -> reader.VectorReader:
    """Open a `.npy` or `.npz` file; see `registry.Format`."""
    return _open_npz(path, ids) if form == "npz" else _open_npy(path, ids)


def write_table(path: Path, form: str, vectors: reader.VectorTable) -> None:
    """Write vectors [N, dim] as `.npy` and ids to `<name>.ids`, or both as `ids` and `embeddings` of a `.npz`."""
    if form == "npz":
        _write_npz(path, vectors)
        return
    with ExitStack() as stack:
        values = stack.enter_context(replacing(path))
        names = stack.enter_context(replacing(columns.sidecar_path(path, ".ids", (".npy",))))  # before the values
        with names.open("w", encoding="utf-8", newline="\n") as text, values.open("wb") as file:
            _write_header(file, (len(vectors.ids), vectors.dim), np.dtype("<f4"))
            columns.check_first_id(path, vectors.ids)
            for some, block in vectors.blocks():
                columns.write_ids(path, some, text)
                block.astype("<f4", copy=False).tofile(file)


def _open_npy(path: Path, ids: Path | None) -> reader.VectorReader:
    beside = columns.find_ids(path, ids)
    with path.open("rb") as file:
        (shape, by_columns, dtype), offset = _header(file, path), file.tell()
    if len(shape) != 2:
        raise ExchangeError(f"{path}: an array of shape {list(shape)}, not [vectors, numbers]. Give one of that shape.")
    count, dim = shape
    reader.check_floating(path, dtype, dim)
    flat, step = reader.RowFile(path, offset, dtype, count, dim), reader.rows_per_block(dim)
    if path.stat().st_size < offset + count * dim * dtype.itemsize:
        raise ExchangeError(f"{path}: truncated, its header says {count:,} vectors. Copy or make it again.")

    def blocks() -> Iterator[reader.VectorBlock]:
        table = np.load(path, mmap_mode="r") if by_columns else None
        for start in range(0, count, step):
            yield reader.VectorBlock(flat.read(start, start + step) if table is None else table[start : start + step])

    row_file = None if by_columns else flat
    return reader.VectorReader(str(path), dim, dtype, lambda: columns.read_ids(path, beside, count), blocks, row_file)


def _open_npz(path: Path, ids: Path | None) -> reader.VectorReader:
    with _unpacking(path), zipfile.ZipFile(path) as archive:
        headers = {}
        _check_members(path, archive)
        for member in (name for name in archive.namelist() if name.endswith(".npy")):
            with archive.open(member) as file:
                headers[member.removesuffix(".npy")] = header = _header(file, path)
            _check_member_size(path, archive.getinfo(member), header)
    tables = [name for name, (shape, _, dtype) in headers.items() if len(shape) == 2 and dtype.kind == "f"]
    texts = [name for name, (shape, _, dtype) in headers.items() if len(shape) == 1 and dtype.kind in "US"]
    if not texts and (of_ids := headers.get("ids")) and len(of_ids[0]) == 1 and of_ids[2].kind in "iu":
        texts = ["ids"]
    if headers and (len(headers) > 1 or not tables) and not texts and ids is None:
        return reader.open_keyed(path, lambda: iter(headers), lambda: _arrays(path, headers), _EXPECTED)
    table = columns.choose_name(path, "arrays of vectors", tables, "embeddings")
    if texts and ids:
        raise columns.redundant_ids_error(path, f"in {', '.join(texts[:3])}")
    text = None if ids else columns.choose_name(path, "arrays of ids", texts, "ids")
    (count, dim), by_columns, dtype = headers[table]
    reader.check_floating(path, dtype, dim)

    def names() -> Iterator[list[str]]:
        if text is None:
            yield from columns.read_ids(path, ids, count)
            return
        with _unpacking(path), zipfile.ZipFile(path) as archive, archive.open(f"{text}.npy") as file:
            (length, *_), _, kind = _header(file, path)
            if length != count:
                raise ExchangeError(f"{path}: {length:,} ids for {count:,} vectors. Make the file again.")
            yield from reader.batch_ids(_texts(path, file, kind, count))

    def blocks() -> Iterator[reader.VectorBlock]:
        if by_columns:  # rows of such an array cannot be read separately from an archive
            _, whole = next(_arrays(path, [table]))
            for start in range(0, count, reader.rows_per_block(dim)):
                yield reader.VectorBlock(whole[start : start + reader.rows_per_block(dim)])
            return
        with _unpacking(path), zipfile.ZipFile(path) as archive, archive.open(f"{table}.npy") as file:
            _header(file, path)
            for start in range(0, count, reader.rows_per_block(dim)):
                rows = min(reader.rows_per_block(dim), count - start)
                content = file.read(rows * dim * dtype.itemsize)
                yield reader.VectorBlock(np.frombuffer(content, dtype).reshape(rows, dim))

    return reader.VectorReader(str(path), dim, dtype, names, blocks)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise ExchangeError if members of an archive overlap, or unpack to more than they can hold."""
    members = archive.infolist()
    packed = sum(member.compress_size for member in members)
    if packed > path.stat().st_size or any(
        member.file_size > reader.MAX_RATIO * max(member.compress_size, 1)
        for member in members
        if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ):
        raise ExchangeError(f"{path}: declares more than its bytes can hold. Copy or make it again.")


def _check_member_size(path: Path, member: zipfile.ZipInfo, header: Header) -> None:
    """Raise ExchangeError if an array is larger than its member of an archive."""
    shape, _, dtype = header
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ExchangeError(
            f"{path}: {member.filename} is truncated, its header says {list(shape)}. Copy or make it again."
        )


def _arrays(path: Path, headers: Iterable[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    with _unpacking(path), np.load(path, allow_pickle=False) as archive:
        for name in headers:
            yield name, archive[name]


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    """Raise ExchangeError if any part of an archive is damaged."""
    try:
        yield
    except (ExchangeError, ResourceError):
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise_shortage(error, path)
        # RuntimeError: a password, or a compression that Python does not know
        raise ExchangeError(f"{path}: not a readable .npz file ({one_line(error)}). Copy or make it again.") from error


def _texts(path: Path, file: IO[bytes], dtype: np.dtype[Any], count: int) -> Iterator[str]:
    for start in range(0, count, 65536):
        part = np.frombuffer(file.read(min(65536, count - start) * dtype.itemsize), dtype)
        try:
            yield from (np.char.decode(part, "utf-8") if dtype.kind == "S" else part.astype(str)).tolist()
        except UnicodeDecodeError as error:
            raise reader.encoding_error(path, error) from error


def _header(file: IO[bytes], path: Path) -> Header:
    try:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if min(shape, default=0) < 0:
            raise ValueError(f"a shape of {list(shape)}")
    except _HEADER_ERRORS as error:
        raise ExchangeError(f"{path}: not a readable NumPy file ({one_line(error)}). Copy or make it again.") from error
    if dtype.hasobject:
        raise ExchangeError(f"{path}: holds Python objects, which could run code. Save arrays of numbers and of text.")
    return shape, by_columns, dtype


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    content = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, content)


def _write_npz(path: Path, vectors: reader.VectorTable) -> None:
    width = max(map(len, vectors.ids))
    for name in vectors.ids:
        if name.endswith("\0"):
            raise ExchangeError(f"{path}: id {name!r} ends with a NUL, which NumPy's text cannot hold. Use .parquet.")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(zipfile.ZipInfo("ids.npy"), "w", force_zip64=True) as file:
            kind = np.dtype(f"<U{width}")
            _write_header(file, (len(vectors.ids),), kind)
            for start in range(0, len(vectors.ids), 65536):
                file.write(np.array(vectors.ids[start : start + 65536], kind).tobytes())
        with archive.open(zipfile.ZipInfo("embeddings.npy"), "w", force_zip64=True) as file:
            _write_header(file, (len(vectors.ids), vectors.dim), np.dtype("<f4"))
            for _, block in vectors.blocks():
                file.write(block.astype("<f4", copy=False).tobytes())
