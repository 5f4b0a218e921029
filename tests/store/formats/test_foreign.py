"""Files that other libraries wrote are read, and files of ours are read by them, bit for bit."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import kaldiio
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.errors import ExchangeError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.formats import reader as sources
from pipeline.store.formats.export_store import export_store
from pipeline.store.formats.import_store import import_store
from pipeline.store.formats.registry import find_format, open_sources

DIM = 6
IDS = [f"spk{n % 5}/ü{n:03d}.wav" for n in range(57)]
BITS = np.random.default_rng(0).integers(0, 2**32, (57, DIM), dtype=np.uint64).astype(np.uint32)
# Any finite float32, tiny and huge ones, signed zeros.
VALUES = np.where(np.isfinite(BITS.view(np.float32)), BITS.view(np.float32), np.float32(-0.0))
LAST = dict(zip(IDS, VALUES, strict=True))

Write = Callable[[Path, np.ndarray], None]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4 * DIM * 10)  # of ten rows: a file has several


def npy(path: Path, values: np.ndarray) -> None:
    np.save(path, values)
    path.with_suffix(".ids").write_text("\n".join(IDS) + "\n", encoding="utf-8")


def npy_by_columns(path: Path, values: np.ndarray) -> None:
    np.save(path, np.asfortranarray(values))
    path.with_suffix(".txt").write_text("\n".join(IDS), encoding="utf-8")


def npz(path: Path, values: np.ndarray) -> None:
    np.savez(path, x=values, utt=np.array(IDS))


def npz_packed(path: Path, values: np.ndarray) -> None:
    np.savez_compressed(path, embeddings=values, ids=np.array(IDS), other=np.eye(3))


def npz_by_id(path: Path, values: np.ndarray) -> None:
    np.savez(path, **dict(zip(IDS, values, strict=True)))


def hdf5(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["xvectors"], file["keys"] = values, IDS


def hdf5_packed(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", data=values, chunks=(7, 2), compression="gzip")
        file["ids"] = np.array([name.encode() for name in IDS])


def hyperion(path: Path, values: np.ndarray) -> None:
    """As its H5DataWriter: one dataset a key."""
    with h5py.File(path, "w", track_order=True) as file:
        for name, value in zip(IDS, values, strict=True):
            file.create_dataset(name, data=value)


def ark(path: Path, values: np.ndarray) -> None:
    kaldiio.save_ark(str(path), dict(zip(IDS, values, strict=True)))


def ark_of_matrices(path: Path, values: np.ndarray) -> None:
    kaldiio.save_ark(str(path), {name: value[None] for name, value in zip(IDS, values, strict=True)})


def scp(path: Path, values: np.ndarray) -> None:
    kaldiio.save_ark(str(path.with_suffix(".ark")), dict(zip(IDS, values, strict=True)), scp=str(path))


def parquet(path: Path, values: np.ndarray) -> None:
    pq.write_table(pa.table({"id": IDS, "speaker": ["s"] * len(IDS), "vector": list(values)}), path, row_group_size=13)


def parquet_fixed(path: Path, values: np.ndarray) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIM)
    pq.write_table(pa.table({"key": pa.array(IDS).dictionary_encode(), "x": lists}), path)


def parquet_wide(path: Path, values: np.ndarray) -> None:
    columns = {f"dim_{place}": values[:, place] for place in reversed(range(DIM))}
    pq.write_table(pa.table({"seconds": np.ones(len(IDS)), **columns, "utterance": IDS}), path)


def csv_of_arrow(path: Path, values: np.ndarray) -> None:
    pyarrow.csv.write_csv(pa.table({"utt": IDS, **{f"x{n}": values[:, n] for n in range(DIM)}}), path)


def csv_of_python(path: Path, values: np.ndarray) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        for name, value in zip(IDS, values, strict=True):
            csv.writer(file).writerow([name, *value.tolist()])


def csv_like_pandas(path: Path, values: np.ndarray) -> None:
    rows = [["", *map(str, range(DIM))], *([n, *map(repr, v.tolist())] for n, v in zip(IDS, values, strict=True))]
    path.write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")


def pt(path: Path, values: np.ndarray) -> None:
    torch.save({"ids": IDS, "embeddings": torch.from_numpy(values)}, path)


def pt_by_id(path: Path, values: np.ndarray) -> None:
    torch.save({name: torch.from_numpy(value.copy()) for name, value in zip(IDS, values, strict=True)}, path)


def pt_of_old(path: Path, values: np.ndarray) -> None:
    torch.save({"ids": IDS, "embeddings": torch.from_numpy(values)}, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, tuple[Write, str]] = {
    write.__name__: (write, name)
    for write, name in [
        (npy, "a.npy"),
        (npy_by_columns, "a.npy"),
        (npz, "a.npz"),
        (npz_packed, "a.npz"),
        (npz_by_id, "a.npz"),
        (hdf5, "a.h5"),
        (hdf5_packed, "a.hdf5"),
        (hyperion, "a.h5"),
        (ark, "a.ark"),
        (ark_of_matrices, "a.ark"),
        (scp, "a.scp"),
        (parquet, "a.parquet"),
        (parquet_fixed, "a.parquet"),
        (parquet_wide, "a.parquet"),
        (csv_of_arrow, "a.csv"),
        (csv_of_python, "a.csv"),
        (csv_like_pandas, "a.csv"),
        (pt, "a.pt"),
        (pt_by_id, "a.pth"),
        (pt_of_old, "a.pt"),
    ]
}


def imported(path: Path, out: Path, **options: object) -> EmbeddingStore:
    import_store(open_sources(str(path)), {}, out, "theirs", **options)  # type: ignore[arg-type]
    return EmbeddingStore.open(out)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_another_library_wrote_is_stored_bit_for_bit(tmp_path: Path, writer: str) -> None:
    write, name = WRITERS[writer]
    write(tmp_path / name, VALUES)
    store = imported(tmp_path / name, tmp_path / "s.zarr")
    assert sorted(store.utterances) == sorted(IDS)
    expected = np.stack([LAST[name] for name in store.utterances])
    np.testing.assert_array_equal(store.read()[:, 0, 0].view(np.uint32), expected.view(np.uint32))
    if writer not in ("hyperion",):  # whose keys h5py gives in the order of groups
        assert store.utterances == tuple(IDS)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
@pytest.mark.parametrize("writer", ["npy", "npz", "hdf5", "hyperion", "parquet"])
def test_other_precisions_become_float32(tmp_path: Path, writer: str, dtype: str) -> None:
    write, name = WRITERS[writer]
    values = np.random.default_rng(1).standard_normal((57, DIM)).astype(dtype)
    if writer == "parquet" and dtype == ">f4":
        pytest.skip("Arrow has no such numbers")
    write(tmp_path / name, values)
    store = imported(tmp_path / name, tmp_path / "s.zarr")
    by_id = dict(zip(IDS, values.astype(np.float32), strict=True))
    for name, value in zip(store.utterances, store.read()[:, 0, 0], strict=True):
        np.testing.assert_array_equal(value, by_id[name])


def test_bfloat16_tensors_are_read(tmp_path: Path) -> None:
    table = torch.randn(57, DIM).bfloat16()
    torch.save({"ids": IDS, "embeddings": table}, tmp_path / "a.pt")
    store = imported(tmp_path / "a.pt", tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read()[:, 0, 0], table.float().numpy())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("by_id", [False, True])
def test_tensors_of_eight_bits_are_read(tmp_path: Path, dtype: torch.dtype, by_id: bool) -> None:
    table = torch.randn(57, DIM).to(dtype)
    content = dict(zip(IDS, table, strict=True)) if by_id else {"ids": IDS, "embeddings": table}
    torch.save(content, tmp_path / "a.pt")
    store = imported(tmp_path / "a.pt", tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read()[:, 0, 0], table.float().numpy())


def read_npy(path: Path) -> dict[str, np.ndarray]:
    names = path.with_suffix(".ids").read_text(encoding="utf-8").splitlines()
    return dict(zip(names, np.load(path, allow_pickle=False), strict=True))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    content = np.load(path, allow_pickle=False)
    return dict(zip(content["ids"].tolist(), content["embeddings"], strict=True))


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return dict(zip(file["ids"].asstr()[:], file["embeddings"][:], strict=True))


def read_hyperion(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in IDS}


def read_ark(path: Path) -> dict[str, np.ndarray]:
    through_list = kaldiio.load_scp(str(path.with_suffix(".scp")))
    found = dict(kaldiio.load_ark(str(path.with_suffix(".ark"))))
    assert all((through_list[name] == value).all() for name, value in found.items())
    return found


def read_parquet(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    return dict(zip(table["utterance"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32), strict=True))


def read_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row[0]: np.array(row[1:], dtype=np.float32) for row in list(csv.reader(file))[1:]}


def read_pt(path: Path) -> dict[str, np.ndarray]:
    content = torch.load(path, weights_only=True)
    return dict(zip(content["ids"], content["embeddings"].numpy(), strict=True))


def read_pt_dict(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items()}


READERS = [
    ("npy", "o.npy", read_npy),
    ("npz", "o.npz", read_npz),
    ("hdf5", "o.h5", read_hdf5),
    ("hyperion", "o.h5", read_hyperion),
    ("ark", "o.ark", read_ark),
    ("scp", "o.scp", read_ark),
    ("parquet", "o.parquet", read_parquet),
    ("csv", "o.csv", read_csv),
    ("pt", "o.pt", read_pt),
    ("pt-dict", "o.pt", read_pt_dict),
]


@pytest.mark.parametrize(("form", "name", "read"), READERS)
def test_what_is_exported_is_read_by_the_other_library_and_comes_back(
    tmp_path: Path, form: str, name: str, read: Callable[[Path], dict[str, np.ndarray]]
) -> None:
    npz(tmp_path / "a.npz", VALUES)
    store = imported(tmp_path / "a.npz", tmp_path / "s.zarr")
    out = tmp_path / "out" / name
    assert export_store(store, out, form).vectors == 57
    found = read(out)
    assert list(found) == IDS
    np.testing.assert_array_equal(np.stack(list(found.values())).view(np.uint32), VALUES.view(np.uint32))
    hidden = [path for path in out.parent.iterdir() if path.name.startswith(".")]
    assert not hidden
    again = imported(out, tmp_path / "again.zarr")
    by_id = dict(zip(again.utterances, again.read()[:, 0, 0], strict=True))
    np.testing.assert_array_equal(np.stack([by_id[name] for name in IDS]).view(np.uint32), VALUES.view(np.uint32))


def test_a_list_whose_archive_has_moved_beside_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    scp(tmp_path / "old" / "a.scp", VALUES)
    (tmp_path / "old").rename(tmp_path / "new")
    store = imported(tmp_path / "new" / "a.scp", tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read()[:, 0, 0], VALUES)


def test_text_archives_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.ark").write_text("a  [ 0.5 1 -2.25 ]\nb  [ 1 2 3 ]\n")
    store = imported(tmp_path / "a.ark", tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read()[:, 0, 0], [[0.5, 1, -2.25], [1, 2, 3]])


@pytest.mark.parametrize("values", [VALUES, np.round(VALUES), VALUES.astype(np.float64)])
def test_text_archives_of_another_library_are_read(tmp_path: Path, values: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        values = np.clip(values, -1e20, 1e20)
    values[~values.any(axis=1), 0] = 1  # a vector of zeros stops the import
    kaldiio.save_ark(str(tmp_path / "a.ark"), dict(zip(IDS, values, strict=True)), text=True)
    store = imported(tmp_path / "a.ark", tmp_path / "s.zarr")
    assert store.utterances == tuple(IDS)
    np.testing.assert_array_equal(store.read()[:, 0, 0], values.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[ 0 -1.5 ]", [0, -1.5]),  # kaldiio takes what begins with a whole number for integers
        ("[ 1 0.5 ]", [1, 0.5]),
        ("[ 1e-05 2 ]", [1e-05, 2]),
        ("[\n  0 1e+03 ]", [0, 1000]),  # a matrix of one row
    ],
)
def test_numbers_of_text_archives_need_no_point(tmp_path: Path, text: str, numbers: list[float]) -> None:
    (tmp_path / "a.ark").write_text(f"a  {text}\nb  [ 2.5 3 ]\n")
    (tmp_path / "a.scp").write_text("a a.ark:2\n")
    for name, rows in (("a.ark", [numbers, [2.5, 3]]), ("a.scp", [numbers])):
        store = imported(tmp_path / name, tmp_path / "s.zarr")
        np.testing.assert_array_equal(store.read()[:, 0, 0], np.array(rows, np.float32))


def test_infinite_numbers_of_text_archives_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.ark").write_text("a  [ inf 1 ]\nb  [ 1 nan ]\nc  [ 1 2 ]\n")
    with pytest.raises(ExchangeError, match=r"2 vectors of .*a.ark hold NaN or infinite numbers, first: a, b\."):
        imported(tmp_path / "a.ark", tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("digits", "dtype", "told"),
    [(".6g", np.float32, False), (".9g", np.float32, False), (".12g", np.float32, False), (".12g", np.float64, True)],
)
def test_rounding_of_text_is_told(tmp_path: Path, digits: str, dtype: type, told: bool) -> None:
    values = np.random.default_rng(3).standard_normal((4, DIM)).astype(dtype)
    rows = [[format(value, digits) for value in row] for row in values.tolist()]
    (tmp_path / "a.ark").write_text("".join(f"u{n}  [ {' '.join(row)} ]\n" for n, row in enumerate(rows)))
    path = tmp_path / "a.ark"
    summary = import_store(open_sources(str(path)), {}, tmp_path / "s.zarr", "theirs")
    assert summary.rounded == ([str(path)] if told else [])


def test_rounding_is_told_of_an_archive_that_begins_with_float32(tmp_path: Path) -> None:
    path = tmp_path / "a.ark"
    kaldiio.save_ark(str(path), {"a": VALUES[0], "b": VALUES[1].astype(np.float64)})
    assert import_store(open_sources(str(path)), {}, tmp_path / "s.zarr", "theirs").rounded == [str(path)]


def test_lists_with_tabs_are_read(tmp_path: Path) -> None:
    scp(tmp_path / "a.scp", VALUES)
    (tmp_path / "a.scp").write_text((tmp_path / "a.scp").read_text(encoding="utf-8").replace(" ", "\t"), "utf-8")
    np.testing.assert_array_equal(imported(tmp_path / "a.scp", tmp_path / "s.zarr").read()[:, 0, 0], VALUES)


def test_lists_of_files_of_one_vector_are_read(tmp_path: Path) -> None:
    lines = []
    for name, value in zip(("a", "b"), VALUES[:2], strict=True):
        kaldiio.save_mat(str(tmp_path / f"{name}.mat"), value)
        lines.append(f"{name} {name}.mat\n")
    (tmp_path / "l.scp").write_text("\n".join([*lines, ""]))  # with blank lines between and after
    store = imported(tmp_path / "l.scp", tmp_path / "s.zarr")
    assert store.utterances == ("a", "b")
    np.testing.assert_array_equal(store.read()[:, 0, 0], VALUES[:2])


def test_one_vector_under_its_id_and_columns_in_npz_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **{"a/b": VALUES[0]})
    store = imported(tmp_path / "one.npz", tmp_path / "one.zarr")
    assert store.utterances == ("a/b",)
    np.testing.assert_array_equal(store.read()[:, 0, 0], VALUES[:1])
    np.savez(tmp_path / "columns.npz", embeddings=np.asfortranarray(VALUES), ids=np.array(IDS))
    np.testing.assert_array_equal(imported(tmp_path / "columns.npz", tmp_path / "c.zarr").read()[:, 0, 0], VALUES)


def test_a_pattern_reads_all_its_files_in_turn(tmp_path: Path) -> None:
    for part, rows in enumerate([slice(0, 20), slice(20, 57)]):
        kaldiio.save_ark(str(tmp_path / f"xvector.{part}.ark"), dict(zip(IDS[rows], VALUES[rows], strict=True)))
    store = imported(tmp_path / "xvector.*.ark", tmp_path / "s.zarr")
    assert store.utterances == tuple(IDS)
    np.testing.assert_array_equal(store.read()[:, 0, 0], VALUES)


@pytest.mark.parametrize("first", [0, 9, 80])
def test_tables_are_found_among_other_datasets(tmp_path: Path, first: int) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(first):
            file[f"a{number:02d}"] = np.arange(3)
        file["embeddings"], file["ids"], file["x"] = VALUES, IDS, np.eye(3)
    store = imported(tmp_path / "a.h5", tmp_path / "s.zarr")
    assert store.utterances == tuple(IDS)
    np.testing.assert_array_equal(store.read()[:, 0, 0], VALUES)


@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a.pt"])
def test_ids_may_be_whole_numbers(tmp_path: Path, name: str) -> None:
    numbers = np.arange(1000, 1057)
    if name == "a.h5":
        with h5py.File(tmp_path / name, "w") as file:
            file["embeddings"], file["ids"] = VALUES, numbers
    elif name == "a.npz":
        np.savez(tmp_path / name, embeddings=VALUES, ids=numbers)
    else:
        torch.save({"embeddings": torch.from_numpy(VALUES), "ids": torch.from_numpy(numbers)}, tmp_path / name)
    store = imported(tmp_path / name, tmp_path / "s.zarr")
    assert store.utterances == tuple(map(str, numbers))
    np.testing.assert_array_equal(store.read()[:, 0, 0], VALUES)


@pytest.mark.parametrize(
    ("form", "name", "files"),
    [
        ("ark", "emb.v2", ["emb.v2.ark", "emb.v2.scp"]),
        ("scp", "emb.v2.scp", ["emb.v2.ark", "emb.v2.scp"]),
        ("ark", "EMB.ARK", ["EMB.ARK", "EMB.scp"]),
        ("npy", "emb.v2", ["emb.v2", "emb.v2.ids"]),
        ("npy", "emb.npy", ["emb.ids", "emb.npy"]),
    ],
)
def test_files_keep_the_whole_name(tmp_path: Path, form: str, name: str, files: list[str]) -> None:
    npz(tmp_path / "a.npz", VALUES)
    store = imported(tmp_path / "a.npz", tmp_path / "s.zarr")
    export_store(store, tmp_path / "out" / name, form)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    if form == "npy":
        again = import_store(open_sources(str(tmp_path / "out" / name), form), {}, tmp_path / "again.zarr", "x")
        assert again.utterances == 57
    else:
        read = kaldiio.load_scp(str(tmp_path / "out" / next(file for file in files if file.endswith("scp"))))
        np.testing.assert_array_equal(read[IDS[-1]], VALUES[-1])


def test_formats_go_by_suffix() -> None:
    assert [find_format(Path(name)).name for name in ("a.npy", "b.H5", "c.scp", "d.pq")] == [
        "npy",
        "hdf5",
        "scp",
        "parquet",
    ]


def test_attributes_are_values_of_json(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", VALUES)
    store = imported(tmp_path / "a.npz", tmp_path / "s.zarr")
    assert json.loads(json.dumps(dict(store.attributes)))["encoder"] == "theirs"
