"""Parquet, read by pyarrow: a column of ids, and a column of lists or numbered columns for the vectors."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, one_line
from pipeline.store.formats import reader
from pipeline.store.formats.columns import choose_name, find_id_column, find_vector_columns
from pipeline.utils.atomic import replacing
from pipeline.utils.shortage import raise_shortage

ID, VECTOR = "utterance", "embedding"
"""Names of the columns in files that we write."""


def open_reader(path: Path, form: str, ids: Path | None) -> reader.VectorReader:
    """Open a Parquet file; see `registry.Format`."""
    try:
        with pq.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
        twice = [name for name, times in Counter(schema.names).items() if times > 1]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable_error(path, "Parquet", error) from error
    if twice:
        raise ExchangeError(f"{path}: column {twice[0]!r} is there twice. Remove one.")
    if not count:
        raise ExchangeError(f"{path}: holds no rows. Check how it was made.")
    texts = [column.name for column in schema if _is_text(column.type)]
    bytes_ = [column.name for column in schema if _is_binary(column.type)]  # may be text, if no other column is
    whole = [column.name for column in schema if pa.types.is_integer(column.type)]
    lists = [column.name for column in schema if _is_list(column.type)]
    name = find_id_column(path, texts or bytes_, whole + bytes_)
    if lists:
        vector = choose_name(path, "columns of lists of numbers", lists, VECTOR)
        columns, kinds = [vector], [schema.field(vector).type.value_type]
        dim = _length(path, vector)
    else:
        floats = [column.name for column in schema if pa.types.is_floating(column.type)]
        columns = find_vector_columns(path, schema.names, floats or whole)
        kinds, dim = [schema.field(column).type for column in columns], len(columns)
        _check_columns(path, dict(zip(columns, kinds, strict=True)))
        # Columns of whole numbers, such as one that is 0 throughout, have the precision of the others.
        kinds = [kind for kind in kinds if pa.types.is_floating(kind)] or kinds
    reader.check_declared_size(path, count, dim)
    dtype = np.result_type(*{np.dtype(kind.to_pandas_dtype()) for kind in kinds})
    reader.check_floating(path, dtype, dim)

    def batches(names: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as file:
            try:
                yield from file.iter_batches(reader.rows_per_block(dim), columns=names, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise unreadable_error(path, "Parquet", error) from error

    def blocks() -> Iterator[reader.VectorBlock]:
        for batch in batches(columns if not lists else [name, columns[0]]):
            yield from _stack_lists(path, batch, name, columns[0], dim) if lists else [stack_columns(batch, columns)]

    return reader.VectorReader(
        str(path), dim, dtype, lambda: (column_ids(path, batch.column(name)) for batch in batches([name])), blocks
    )


def write_table(path: Path, form: str, vectors: reader.VectorTable) -> None:
    """Write columns `utterance` and `embedding` (lists of float32)."""
    with replacing(path) as temporary:
        kind = pa.list_(pa.float32(), vectors.dim)
        schema = pa.schema([(ID, pa.string()), (VECTOR, kind)])
        with pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer:
            for ids, block in vectors.blocks():
                lists = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), vectors.dim)
                writer.write_batch(pa.RecordBatch.from_arrays([pa.array(ids, pa.string()), lists], schema=schema))


def _check_columns(path: Path, kinds: dict[str, pa.DataType]) -> None:
    """Raise ExchangeError if numbered columns hold anything but numbers: no part of a vector is ignored."""
    for name, kind in kinds.items():
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ExchangeError(
                f"{path}: column {name!r} is numbered like those of the vectors, but has type {kind}. Write it as"
                " float32, or rename it."
            )


def stack_columns(batch: pa.RecordBatch, names: list[str]) -> reader.VectorBlock:
    """Stack columns of numbers to vectors."""
    return reader.VectorBlock(np.stack([_numbers(batch.column(name)) for name in names], axis=1))


def _numbers(column: pa.Array) -> NDArray[Any]:
    """Return a column as floating point numbers; whole numbers become float32 if it holds them exactly."""
    numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if pa.types.is_integer(column.type):
        singles = numbers.astype(np.float32)
        exact = np.array_equal(singles.astype(np.float64), numbers, equal_nan=True)  # Arrow's null becomes NaN
        return singles if exact else numbers.astype(np.float64)
    return numbers


def _stack_lists(path: Path, batch: pa.RecordBatch, name: str, vector: str, dim: int) -> Iterator[reader.VectorBlock]:
    lists = batch.column(vector)
    flat = lists.flatten()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if lists.null_count or flat.null_count or (lengths != dim).any():
        dtype = np.float64 if pa.types.is_float64(flat.type) else np.float32
        rows: Iterator[tuple[str, NDArray[Any] | None]] = (
            (key, None if row is None else np.array(row, dtype=dtype))
            for key, row in zip(column_ids(path, batch.column(name)), lists.to_pylist(), strict=True)
        )
        yield from reader.stack_vectors(path, dim, rows)
    else:
        yield reader.VectorBlock(flat.to_numpy(zero_copy_only=False).reshape(-1, dim))


def _length(path: Path, vector: str) -> int:
    """Return the length of the first list of a column."""
    with pq.ParquetFile(path) as file:
        kind = file.schema_arrow.field(vector).type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        lists = (batch.column(0) for batch in file.iter_batches(1024, columns=[vector]))
        lengths = (length for each in lists for length in each.value_lengths().to_pylist())
        return next((int(length) for length in lengths if length), 0)


def column_ids(path: Path, column: pa.Array) -> list[str]:
    """Return a column as ids; raise ExchangeError if one is missing or is not text."""
    if column.null_count:
        raise ExchangeError(f"{path}: {column.null_count:,} rows have no id. Fill them in or remove the rows.")
    try:
        names: list[str] = column.cast(pa.string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise reader.encoding_error(path, error) from error
    return names


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    some = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(some or pa.types.is_binary_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    some = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(some and pa.types.is_floating(kind.value_type))


def unreadable_error(path: Path, form: str, error: Exception) -> ExchangeError:
    """Return the error for a file that pyarrow rejects; raise ResourceError if the machine lacked something."""
    raise_shortage(error, path)
    return ExchangeError(f"{path}: not a readable {form} file ({one_line(error)}). Repair it or make it again.")
