"""CSV and TSV, read by pyarrow: a column of ids and numbered columns under a header, or the id first without one."""

import csv
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipeline.errors import ExchangeError
from pipeline.store.formats.columns import ID_NAMES, find_id_column, find_vector_columns
from pipeline.store.formats.decimals import parse_decimals
from pipeline.store.formats.parquet import column_ids, stack_columns, unreadable_error
from pipeline.store.formats.reader import BLOCK_BYTES, VectorReader, VectorTable
from pipeline.utils.atomic import replacing

_SURE_COUNT = 4
"""Length from which on a line of ascending numbers is taken for a header, not for a vector."""
_NUMBER = re.compile(r"[ \t]*[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|nan|inf(inity)?)[ \t]*", re.IGNORECASE)


def open_reader(path: Path, form: str, ids: Path | None) -> VectorReader:
    """Open a CSV or TSV file; see `registry.Format`."""
    delimiter = _delimiter(path)
    cells, *first = _first_lines(path, delimiter)
    header = _is_header(path, cells)
    places, named = list(range(1, len(cells))), 0
    if header:
        places = [cells.index(column) for column in find_vector_columns(path, cells, cells)]
        others = [cell for place, cell in enumerate(cells) if place not in places]
        texts = [cell for cell in others if _is_text(cell, _column(first, cells.index(cell)))]
        id_name = find_id_column(path, texts or others, others)
        named = cells.index(id_name)
        if cells.count(id_name) > 1:
            raise ExchangeError(f"{path}:1: column {id_name!r} is there twice. Remove one.")
    else:
        _check_ids(path, [line[0] for line in (cells, *first) if line])
    names = [f"c{place}" for place in range(len(cells))]
    values = [names[place] for place in places]
    if not values:
        raise ExchangeError(f"{path}:1: no columns of numbers after the id.")

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        types = {names[named]: pa.string()} | {value: pa.float32() for value in values}
        try:
            reading = pa.csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=int(header)
            )
            conversion = pa.csv.ConvertOptions(
                column_types=types, include_columns=columns, strings_can_be_null=False, check_utf8=True
            )
            parsing = pa.csv.ParseOptions(delimiter=delimiter)
            with closing(pa.csv.open_csv(path, reading, parsing, conversion)) as reader:
                yield from reader
        except (pa.ArrowException, OSError) as error:
            raise unreadable_error(path, "CSV", error) from error

    return VectorReader(
        str(path),
        len(values),
        _precision(first if header else [cells, *first], places),
        lambda: (column_ids(path, batch.column(0)) for batch in batches([names[named]])),
        lambda: (stack_columns(batch, values) for batch in batches(values)),
    )


def write_table(path: Path, form: str, vectors: VectorTable) -> None:
    """Write columns `utterance`, `e0`, `e1` …, separated by tabs if the suffix is `.tsv`."""
    with replacing(path) as temporary:
        names = [ID_NAMES[0], *(f"e{number}" for number in range(vectors.dim))]
        schema = pa.schema([(names[0], pa.string()), *((name, pa.float32()) for name in names[1:])])
        options = pa.csv.WriteOptions(delimiter=_delimiter(path))
        with pa.csv.CSVWriter(temporary, schema, write_options=options) as writer:
            for ids, block in vectors.blocks():
                columns = [pa.array(ids, pa.string()), *map(pa.array, np.ascontiguousarray(block.T))]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _first_lines(path: Path, delimiter: str) -> list[list[str]]:
    """Return the cells of the first lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(islice(csv.reader(file, delimiter=delimiter), 10))
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable_error(path, "CSV", error) from error
    if not lines or len(lines[0]) < 2:
        raise ExchangeError(f"{path}:1: not a line of an id and numbers.")
    return lines


def _is_header(path: Path, cells: list[str]) -> bool:
    """Return True if a first line names columns; pandas leaves the first name empty and numbers the others."""
    name, *others = (cell.strip() for cell in cells)
    if name.lower() in ID_NAMES and all(map(str.isdecimal, others)):
        return True
    if any(others == [str(number + first) for number in range(len(others))] for first in (0, 1)):
        if name and len(others) < _SURE_COUNT:
            raise ExchangeError(
                f"{path}:1: {name!r} and numbers that count may be names of columns, or an id and its vector. Call the"
                f" first column {ID_NAMES[0]!r} if they are names; else add a first line of names."
            )
        return True
    return not all(map(_NUMBER.fullmatch, others))


def _check_ids(path: Path, names: list[str]) -> None:
    """Raise ExchangeError if the lines of a file without a header begin with numbers of vectors instead of ids."""
    if all(_NUMBER.fullmatch(name) and not name.strip().isdecimal() for name in names):
        raise ExchangeError(
            f"{path}:1: begins with {names[0]!r}, which seems to be a number of the vector, not an id. Write ids first;"
            f" if it is an id, add a first line of names, the first of them {ID_NAMES[0]!r}."
        )


def _is_text(name: str, cells: list[str]) -> bool:
    """Return True if a column is text, which CSV does not declare; ids may be numbers."""
    return name.strip().lower() in ID_NAMES or not all(map(_NUMBER.fullmatch, cells))


def _column(lines: list[list[str]], place: int) -> list[str]:
    return [cells[place] for cells in lines if place < len(cells)]


def _precision(lines: list[list[str]], places: list[int]) -> np.dtype[Any]:
    """Return float64 if the first lines have numbers that float32 cannot hold, else float32."""
    words = [word for place in places for word in _column(lines, place) if _NUMBER.fullmatch(word)]
    return parse_decimals(words).dtype
