"""Parquet and CSV, by pyarrow: a column of ids, and a column of lists or numbered columns for the vectors."""

import csv
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, one_line
from pipeline.exchange.source import BLOCK_BYTES, Block, Source, Vectors, check_floating, rows_of, stacked
from pipeline.exchange.tabular import chosen, numbered
from pipeline.files import replacing

ID, VECTOR = "utterance", "embedding"
"""Names of the columns that we write."""

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|nan|inf(inity)?)\s*", re.IGNORECASE)


def open_source(path: Path, form: str, ids: Path | None) -> Source:
    """Open a Parquet or CSV file; see `formats.open_file`."""
    return _open_csv(path) if form == "csv" else _open_parquet(path)


def write(path: Path, form: str, vectors: Vectors) -> None:
    """Write columns `utterance` and `embedding` (lists of float32), or in CSV `utterance`, `e0`, `e1` …"""
    with replacing(path) as temporary:
        if form == "csv":
            names = [ID, *(f"e{number}" for number in range(vectors.dim))]
            schema = pa.schema([(names[0], pa.string()), *((name, pa.float32()) for name in names[1:])])
            with pa.csv.CSVWriter(temporary, schema) as writer:
                for ids, block in vectors.blocks():
                    columns = [pa.array(ids, pa.string()), *map(pa.array, np.ascontiguousarray(block.T))]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            return
        kind = pa.list_(pa.float32(), vectors.dim)
        schema = pa.schema([(ID, pa.string()), (VECTOR, kind)])
        with pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer:
            for ids, block in vectors.blocks():
                lists = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), vectors.dim)
                writer.write_batch(pa.RecordBatch.from_arrays([pa.array(ids, pa.string()), lists], schema=schema))


def _open_parquet(path: Path) -> Source:
    try:
        with pq.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "Parquet", error) from error
    if not count:
        raise ExchangeError(f"{path}: holds no rows. Check what it was made with.")
    texts = [column.name for column in schema if _is_text(column.type)]
    lists = [column.name for column in schema if _is_list(column.type)]
    name = chosen(path, "columns of text", texts, ID if ID in texts else "id")
    if lists:
        vector = chosen(path, "columns of lists of numbers", lists, VECTOR)
        columns, kind = [vector], schema.field(vector).type.value_type
        dim = _length(path, vector)
    else:
        columns = numbered(path, [column.name for column in schema if pa.types.is_floating(column.type)])
        kind, dim = schema.field(columns[0]).type, len(columns)
    dtype = np.dtype(kind.to_pandas_dtype())
    check_floating(path, dtype, dim)

    def batches(names: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as file:
            try:
                yield from file.iter_batches(rows_of(dim), columns=names, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, "Parquet", error) from error

    def blocks() -> Iterator[Block]:
        for batch in batches(columns if not lists else [name, columns[0]]):
            yield from _of_lists(path, batch, name, columns[0], dim) if lists else [_of_columns(batch, columns)]

    return Source(str(path), dim, dtype, lambda: (_ids(path, batch.column(name)) for batch in batches([name])), blocks)


def _open_csv(path: Path) -> Source:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    header, cells = _first_line(path, delimiter)
    places = list(range(1, len(cells)))
    named = 0
    if header:
        columns = numbered(path, [cell for cell in cells if not _is_id(cell)])
        places = [cells.index(column) for column in columns]
        others = [place for place, cell in enumerate(cells) if place not in places and _is_id(cell)]
        named = others[0] if others else 0
        if named in places:
            raise ExchangeError(f"{path}:1: no column of ids. Name one 'utterance'.")
    names = [f"c{place}" for place in range(len(cells))]
    values = [names[place] for place in places]
    if not values:
        raise ExchangeError(f"{path}:1: no columns of numbers after the id.")

    def batches(which: list[str]) -> Iterator[pa.RecordBatch]:
        types = {names[named]: pa.string()} | {value: pa.float32() for value in values}
        try:
            with closing(
                pa.csv.open_csv(
                    path,
                    pa.csv.ReadOptions(
                        use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=int(header)
                    ),
                    pa.csv.ParseOptions(delimiter=delimiter),
                    pa.csv.ConvertOptions(
                        column_types=types, include_columns=which, strings_can_be_null=False, check_utf8=True
                    ),
                )
            ) as reader:
                yield from reader
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, "CSV", error) from error

    return Source(
        str(path),
        len(values),
        np.dtype(np.float32),
        lambda: (_ids(path, batch.column(0)) for batch in batches([names[named]])),
        lambda: (_of_columns(batch, values) for batch in batches(values)),
    )


def _first_line(path: Path, delimiter: str) -> tuple[bool, list[str]]:
    """Return whether the first line is a header, and its cells: pandas leaves the first empty and counts the others."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            cells = next(csv.reader(file, delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, "CSV", error) from error
    if len(cells) < 2:
        raise ExchangeError(f"{path}:1: not a line of an id and numbers.")
    counting = cells[1:] == [str(number) for number in range(len(cells) - 1)]
    return counting or not all(map(_NUMBER.fullmatch, cells[1:])), cells


def _is_id(cell: str) -> bool:
    return not any(letter.isdecimal() for letter in cell)


def _of_columns(batch: pa.RecordBatch, names: list[str]) -> Block:
    return Block(np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in names], axis=1))


def _of_lists(path: Path, batch: pa.RecordBatch, name: str, vector: str, dim: int) -> Iterator[Block]:
    lists = batch.column(vector)
    flat = lists.flatten()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if lists.null_count or flat.null_count or (lengths != dim).any():
        rows: Iterator[tuple[str, NDArray[Any] | None]] = (
            (key, None if row is None else np.array(row, dtype=np.float64))
            for key, row in zip(_ids(path, batch.column(name)), lists.to_pylist(), strict=True)
        )
        yield from stacked(path, dim, rows)
    else:
        yield Block(flat.to_numpy(zero_copy_only=False).reshape(-1, dim))


def _length(path: Path, vector: str) -> int:
    """Return the length of the first list of a column."""
    with pq.ParquetFile(path) as file:
        kind = file.schema_arrow.field(vector).type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        lengths = (
            length
            for batch in file.iter_batches(1024, columns=[vector])
            for length in batch.column(0).value_lengths().to_pylist()
        )
        return next((int(length) for length in lengths if length), 0)


def _ids(path: Path, column: pa.Array) -> list[str]:
    if column.null_count:
        raise ExchangeError(f"{path}: {column.null_count:,} rows have no id. Fill them in or remove the rows.")
    names: list[str] = column.cast(pa.string()).to_pylist()
    return names


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    some = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(some and pa.types.is_floating(kind.value_type))


def _unreadable(path: Path, form: str, error: Exception) -> ExchangeError:
    return ExchangeError(f"{path}: not a readable {form} file ({one_line(error)}). Mend it or make it again.")
