"""Which columns of tables are the ids and which the vectors: none is taken for another, and none is left out."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ExchangeError
from pipeline.model.export import export_format as form_of_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.formats.export_store import export_store
from pipeline.store.formats.import_store import ImportSummary, import_store
from pipeline.store.formats.registry import find_format, open_sources

DIM = 4
IDS = ["a1", "b2", "c3"]
VALUES = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)


def write_csv(path: Path, header: Sequence[object], *before: Sequence[object], delimiter: str = ",") -> Path:
    """Columns `before`, then the vectors, as Python's own writer has them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(header)
        rows.writerows(
            [*first, *map(str, vector)] for first, vector in zip(zip(*before, strict=True), VALUES, strict=True)
        )
    return path


def imported(path: Path) -> tuple[ImportSummary, EmbeddingStore]:
    done = import_store(open_sources(str(path)), {}, path.parent / "s.zarr", "x")
    return done, EmbeddingStore.open(path.parent / "s.zarr")


def check(path: Path, ids: Sequence[str] = IDS, values: np.ndarray = VALUES) -> ImportSummary:
    done, store = imported(path)
    assert store.utterances == tuple(ids)
    np.testing.assert_array_equal(store.read()[:, 0, 0], values)
    return done


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("prefix", ["", "e", "dim_", "x."])
@pytest.mark.parametrize("name", ["id", "utt", ""])
def test_a_header_is_known_whichever_way_columns_are_numbered(
    tmp_path: Path, first: int, prefix: str, name: str
) -> None:
    header = [name, *(f"{prefix}{number + first}" for number in range(DIM))]
    check(write_csv(tmp_path / "a.csv", header, IDS))


def test_a_header_that_counts_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="column 0 is missing"):
        imported(write_csv(tmp_path / "a.csv", ["id", *range(2, DIM + 2)], IDS))


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("speaker", "utterance"), (["s", "s", "t"], IDS)),
        (("speaker", "ID"), (["s", "s", "t"], IDS)),
        (("dur", "id"), ([1.5, 2.5, 3], IDS)),
        (("id", "utterance"), (["x", "y", "z"], IDS)),
        (("dur", "name"), ([1.5, 2.5, 3], IDS)),  # the only one of text
        (("", "utterance"), ([0, 1, 2], IDS)),  # pandas writes the numbers of rows
        (("speaker", "id"), (["s", "s", "t"], ["1001", "1002", "1003"])),
    ],
)
def test_ids_are_the_column_of_that_name(tmp_path: Path, names: tuple[str, ...], columns: tuple[list, ...]) -> None:
    header = [*names, *(f"e{number}" for number in range(DIM))]
    ids = columns[names.index("name" if "name" in names else "utterance" if "utterance" in names else names[1])]
    check(write_csv(tmp_path / "a.csv", header, *columns), ids)
    if columns[1] is IDS:  # Parquet knows text from numbers
        table = dict(zip(names, columns, strict=True)) | {f"e{n}": VALUES[:, n] for n in range(DIM)}
        pq.write_table(pa.table(table), tmp_path / "a.parquet")
        check(tmp_path / "a.parquet", ids)


def test_two_columns_of_text_without_such_a_name_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["speaker", "name", *(f"e{number}" for number in range(DIM))], IDS, IDS)
    with pytest.raises(ExchangeError, match=r"2 columns of text \(speaker, name\)\. Name .* 'utterance'"):
        imported(path)


def test_ids_that_may_be_one_column_or_another_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2, 3], "speaker": IDS, "x": list(VALUES)}), tmp_path / "a.parquet")
    with pytest.raises(ExchangeError, match=r"ids may be 'id', which is not text, or 'speaker'"):
        imported(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(IDS, pa.large_string()),
        pa.array(IDS, pa.string_view()),
        pa.array([name.encode() for name in IDS], pa.binary()),
        pa.array([name.encode() for name in IDS], pa.large_binary()),
        pa.array([name.encode() for name in IDS], pa.binary(2)),
        pa.array(IDS, pa.large_string()).dictionary_encode(),
        pa.array([11, 12, 13]),
    ],
    ids=lambda column: str(column.type),
)
def test_ids_of_parquet_are_text_of_any_type_or_numbers(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"id": ids, "x": list(VALUES)}), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", ["11", "12", "13"] if ids.type == pa.int64() else IDS)


def test_ids_of_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [b"\xff", b"b", b"c"], "x": list(VALUES)}), tmp_path / "a.parquet")
    with pytest.raises(ExchangeError, match=r"a.parquet: ids are not UTF-8 text"):
        imported(tmp_path / "a.parquet")


@pytest.mark.parametrize("place", [0, 2, DIM - 1])
@pytest.mark.parametrize("numbers", [[0, 0, 0], [1, -2, 3], [2**24 + 1, 0, 0]])
def test_whole_numbers_are_a_part_of_the_vector(tmp_path: Path, place: int, numbers: list[int]) -> None:
    columns = {f"e{number}": VALUES[:, number] for number in range(DIM)}
    pq.write_table(pa.table({"id": IDS, **columns, f"e{place}": np.array(numbers)}), tmp_path / "a.parquet")
    expected = VALUES.copy()
    expected[:, place] = numbers
    assert bool(check(tmp_path / "a.parquet", IDS, expected).rounded) == (2**24 + 1 in numbers)


def test_a_numbered_column_of_something_else_is_refused(tmp_path: Path) -> None:
    columns = {f"e{number}": VALUES[:, number] for number in range(DIM)}
    pq.write_table(pa.table({"id": IDS, **columns, f"e{DIM}": ["x", "y", "z"]}), tmp_path / "a.parquet")
    with pytest.raises(ExchangeError, match=r"column 'e4' is numbered like those of the vectors, but has type string"):
        imported(tmp_path / "a.parquet")


@pytest.mark.parametrize("place", [0, 2])
def test_rounding_is_told_if_any_column_is_float64(tmp_path: Path, place: int) -> None:
    columns = {f"e{n}": VALUES[:, n].astype(np.float64 if n == place else np.float32) for n in range(DIM)}
    pq.write_table(pa.table({"id": IDS, **columns}), tmp_path / "a.parquet")
    assert check(tmp_path / "a.parquet").rounded == [str(tmp_path / "a.parquet")]


@pytest.mark.parametrize(("dtype", "told"), [(np.float32, False), (np.float64, True)])
@pytest.mark.parametrize("header", [True, False])
def test_rounding_of_csv_is_told(tmp_path: Path, dtype: type, told: bool, header: bool) -> None:
    values = np.random.default_rng(1).standard_normal((3, DIM)).astype(dtype)
    table = pa.table({"id": IDS, **{f"e{n}": values[:, n] for n in range(DIM)}})
    pyarrow.csv.write_csv(table, tmp_path / "a.csv", pyarrow.csv.WriteOptions(include_header=header))
    done, _ = imported(tmp_path / "a.csv")
    assert done.rounded == ([str(tmp_path / "a.csv")] if told else [])


@pytest.mark.parametrize("name", ["o.tsv", "o.TSV"])
def test_what_is_exported_with_tabs_comes_back(tmp_path: Path, name: str) -> None:
    _, store = imported(write_csv(tmp_path / "a.csv", ["id", *range(DIM)], IDS))
    export_store(store, tmp_path / name, "csv")
    with (tmp_path / name).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert header == ["utterance", *(f"e{number}" for number in range(DIM))]
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), VALUES)
    check(tmp_path / name)


def test_another_library_writes_tabs(tmp_path: Path) -> None:
    check(write_csv(tmp_path / "A.TSV", ["id", *range(DIM)], IDS, delimiter="\t"))


def test_suffixes_may_be_in_capitals() -> None:
    assert [find_format(Path(f"a{suffix}")).name for suffix in (".TSV", ".Npz")] == ["csv", "npz"]
    assert form_of_model(Path("M.ONNX")) == "onnx"
