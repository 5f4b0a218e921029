"""A file that cannot be read is one clear line, and nothing in a file is ever run."""

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import kaldiio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.errors import ExchangeError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.formats import registry as formats
from pipeline.store.formats.export_store import export_store
from pipeline.store.formats.import_store import import_store
from pipeline.store.formats.registry import open_sources
from pipeline.store.schema import OK
from pipeline.store.writer import write_store

pytestmark = pytest.mark.endurance

VALUES = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
IDS = ["a", "b", "c", "d"]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def no_ids(folder: Path) -> Path:
    np.save(folder / "x.npy", VALUES)
    return folder / "x.npy"


def other_count(folder: Path) -> Path:
    (folder / "x.ids").write_text("a\nb\n")
    return no_ids(folder)


def cut_npy(folder: Path) -> Path:
    path = no_ids(folder)
    (folder / "x.txt").write_text("a\nb\nc\nd\n")
    path.write_bytes(path.read_bytes()[:-5])
    return path


def one_axis(folder: Path) -> Path:
    np.save(folder / "x.npy", VALUES[0])
    (folder / "x.txt").write_text("a\n")
    return folder / "x.npy"


def integers(folder: Path) -> Path:
    np.save(folder / "x.npy", np.ones((4, 3), int))
    (folder / "x.txt").write_text("a\nb\nc\nd\n")
    return folder / "x.npy"


def objects(folder: Path) -> Path:
    np.savez(folder / "x.npz", ids=np.array(IDS, dtype=object), embeddings=VALUES)
    return folder / "x.npz"


def trap_npy(folder: Path) -> Path:
    np.save(folder / "x.npy", np.array([Trap(folder / "sprung")], dtype=object), allow_pickle=True)
    (folder / "x.txt").write_text("a\n")
    return folder / "x.npy"


def trap_pt(folder: Path) -> Path:
    torch.save({"a": Trap(folder / "sprung")}, folder / "x.pt")
    return folder / "x.pt"


def trap_ark(folder: Path) -> Path:
    (folder / "x.ark").write_bytes(b"a PKL" + pickle.dumps(Trap(folder / "sprung")))
    return folder / "x.ark"


def trap_scp(folder: Path) -> Path:
    (folder / "x.scp").write_text(f"a touch {folder / 'sprung'} |\n")
    return folder / "x.scp"


def cut_ark(folder: Path) -> Path:
    kaldiio.save_ark(str(folder / "x.ark"), dict(zip(IDS, VALUES, strict=True)))
    (folder / "x.ark").write_bytes((folder / "x.ark").read_bytes()[:-2])
    return folder / "x.ark"


def cut_listed(folder: Path) -> Path:
    kaldiio.save_ark(str(folder / "x.ark"), dict(zip(IDS, VALUES, strict=True)), scp=str(folder / "x.scp"))
    (folder / "x.ark").write_bytes((folder / "x.ark").read_bytes()[:-4])  # a whole number less
    return folder / "x.scp"


def open_text(folder: Path) -> Path:
    (folder / "x.ark").write_text("a [ 0 1\n")
    return folder / "x.ark"


def scp_without_ark(folder: Path) -> Path:
    (folder / "x.scp").write_text("a gone.ark:2\n")
    return folder / "x.scp"


def two_tables(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"], file["y"], file["ids"] = VALUES, VALUES, IDS
    return folder / "x.h5"


def compressed_by_hyperion(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("a", data=np.ones(3, np.uint8)).attrs["data_format"] = 1
    return folder / "x.h5"


def no_text(folder: Path) -> Path:
    pq.write_table(pa.table({"e0": [1.0], "e1": [2.0]}), folder / "x.parquet")
    return folder / "x.parquet"


def a_column_is_missing(folder: Path) -> Path:
    pq.write_table(pa.table({"id": ["a"], "e0": [1.0], "e1": [2.0], "e3": [2.0]}), folder / "x.parquet")
    return folder / "x.parquet"


def csv_with_words(folder: Path) -> Path:
    (folder / "x.csv").write_text("id,e0,e1\na,1.0,2.0\nb,1.0,two\n")
    return folder / "x.csv"


def ragged_csv(folder: Path) -> Path:
    (folder / "x.csv").write_text("a,1.0,2.0\nb,1.0\n")
    return folder / "x.csv"


def npz_ids_of_bytes(folder: Path) -> Path:
    np.savez(folder / "x.npz", ids=np.array([b"a", b"\xff", b"c", b"d"]), embeddings=VALUES)
    return folder / "x.npz"


def hdf5_ids_of_bytes(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["embeddings"], file["ids"] = VALUES, np.array([b"a", b"\xff", b"c", b"d"])
    return folder / "x.h5"


def hdf5_keys_of_bytes(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["a"], file[b"\xff"] = VALUES[:2]
    return folder / "x.h5"


def halves_of_characters(folder: Path) -> Path:
    torch.save({"ids": ["a", "\ud800", "c", "d"], "embeddings": torch.from_numpy(VALUES)}, folder / "x.pt")
    return folder / "x.pt"


def dangling(*names: str, link: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "x.h5", "w") as file:
            for name in names:
                file[name] = link
            file["a"] = VALUES[0]
        return folder / "x.h5"

    return write


def in_a_group(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["data/embeddings"], file["data/ids"] = VALUES, IDS
    return folder / "x.h5"


def without_ids(folder: Path) -> Path:
    np.savez(folder / "x.npz", embeddings=VALUES, rate=np.ones(3))
    return folder / "x.npz"


def damaged_npz(place: float) -> Callable[[Path], Path]:
    """Packed, with some bytes overwritten at a share of its length."""

    def write(folder: Path) -> Path:
        path = folder / "x.npz"
        values = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32)
        np.savez_compressed(path, embeddings=values, ids=np.array([f"u{n}" for n in range(3000)]))
        content = bytearray(path.read_bytes())
        start = int(place * len(content))
        content[start : start + 40] = b"\xff" * 40
        path.write_bytes(content)
        return path

    return write


def wrong_sum(folder: Path) -> Path:
    """Whole, but of another checksum, which is known only at the end."""
    np.savez(folder / "x.npz", embeddings=VALUES, ids=np.array(IDS))
    content = (folder / "x.npz").read_bytes()
    (folder / "x.npz").write_bytes(content.replace(VALUES.tobytes(), (VALUES + 1).tobytes()))
    return folder / "x.npz"


def tensors(**content: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content, folder / "x.pt")
        return folder / "x.pt"

    return write


def odd_header(before: bytes, after: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "x.npy", VALUES)
        (folder / "x.ids").write_text("a\nb\nc\nd\n")
        content = (folder / "x.npy").read_bytes()
        assert before in content
        (folder / "x.npy").write_bytes(content.replace(before, after))
        return folder / "x.npy"

    return write


def twice_in_parquet(*names: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        columns = [pa.array(list("abcd")) if name == "id" else pa.array(VALUES[:, 0]) for name in names]
        pq.write_table(pa.Table.from_arrays(columns, names=list(names)), folder / "x.parquet")
        return folder / "x.parquet"

    return write


def latin_in_parquet(folder: Path) -> Path:
    binary = pa.array(["\xe9".encode("latin-1"), b"b", b"c", b"d"])
    columns = [pa.Array.from_buffers(pa.string(), 4, binary.buffers()), pa.array(list(VALUES))]
    pq.write_table(pa.table(columns, names=["id", "e"]), folder / "x.parquet")
    return folder / "x.parquet"


def loop_in_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["a/b"] = VALUES[0]
        file["a/again"] = file["a"]
    return folder / "x.h5"


def text(suffix: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "x.ark").write_bytes(b"a  [ 1.5 2.5 ]\n")
        (folder / f"x{suffix}").write_text(content)
        return folder / f"x{suffix}"

    return write


def garbage(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / f"x{suffix}").write_bytes(bytes(range(128, 256)) * 9)
        (folder / "x.ids").write_text("a\n")
        return folder / f"x{suffix}"

    return write


def empty(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / f"x{suffix}").write_bytes(b"")
        (folder / "x.ids").write_text("")
        return folder / f"x{suffix}"

    return write


SUFFIXES = (".npy", ".npz", ".h5", ".ark", ".scp", ".parquet", ".csv", ".pt")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (no_ids, "neither x.ids nor x.txt is beside it"),
        (other_count, "2 ids for the 4 vectors"),
        (cut_npy, "truncated"),
        (one_axis, "shape [3]"),
        (integers, "numbers of type int64"),
        (objects, "Python objects"),
        (trap_npy, "Python objects"),
        (trap_pt, "is not loaded because it could be code"),
        (trap_ark, "not a vector of floats"),
        (trap_scp, "x.scp:1: is a command, which is not run"),
        (cut_ark, "truncated in d"),
        (cut_listed, "truncated in d"),
        (open_text, "it has [ but no ]"),
        (scp_without_ark, "gone.ark, which is not there"),
        (two_tables, "2 datasets of vectors (x, y). Name the right one 'embeddings'"),
        (compressed_by_hyperion, "is compressed"),
        (no_text, "no columns of text"),
        (a_column_is_missing, "column e2 is missing"),
        (csv_with_words, "two"),
        (ragged_csv, "not a readable CSV file"),
        (lambda folder: folder / "none.npy", "no such file"),
        (lambda folder: folder / "*.npy", "no such file"),
        (lambda folder: folder, "is a folder, a pipe or a device"),
        (npz_ids_of_bytes, "ids are not UTF-8 text"),
        (hdf5_ids_of_bytes, "ids are not UTF-8 text"),
        (hdf5_keys_of_bytes, "is not UTF-8 text"),
        (halves_of_characters, "ids are not UTF-8 text"),
        (dangling("b", link=h5py.SoftLink("/gone")), "'b' is a link to another place or file, which is not followed"),
        (dangling("g/b", link=h5py.ExternalLink("gone.h5", "/b")), "'b' is a link to another place or file"),
        (in_a_group, "data/embeddings is not a vector: its shape is [4, 3]. Save 'embeddings'"),
        (without_ids, "embeddings is not a vector: its shape is [4, 3]. Save arrays 'embeddings'"),
        *((damaged_npz(place), "not a readable .npz file") for place in (0.003, 0.4, 0.8)),
        (wrong_sum, "Bad CRC-32"),
        (tensors(a=torch.eye(3).to_sparse()), "'a' is a tensor of type torch.float32 and layout torch.sparse_coo"),
        (tensors(ids=["a", "b", "c"], embeddings=torch.eye(3).to_sparse()), "layout torch.sparse_coo"),
        (tensors(a=torch.ones(3, dtype=torch.complex64)), "numbers of type complex64"),
        (odd_header(b"(4, 3)", b"(4, 30"), "not a readable NumPy file"),
        (odd_header(b"(4, 3)", b"[4, 3]"), "not a readable NumPy file"),
        (odd_header(b"(4, 3), ", b"(4, -3),"), "a shape of [4, -3]"),
        (twice_in_parquet("id", "id", "e0"), "column 'id' is there twice"),
        (twice_in_parquet("id", "e0", "e0"), "column 'e0' is there twice"),
        (latin_in_parquet, "ids are not UTF-8 text"),
        (loop_in_hdf5, "a/again is a group that is there by another name"),
        (text(".csv", "id,id,e0,e1\na,b,1,2\n"), "column 'id' is there twice"),
        (text(".csv", "a,1,2,3\nb,4,5,6\n"), "may be names of columns, or an id and its vector"),
        (text(".csv", "a,0.5\x1f,1.5\nb,4,5\n"), "x.csv"),
        (text(".csv", f"id,e{'1' * 5000}\na,1\n"), "x.csv"),
        (text(".scp", f"a x.ark:{'9' * 30}\n"), "x.scp:1: not a line"),
        (tensors(ids=[1.5, 2.5, 3.5], embeddings=torch.eye(3)), "id '1.5' is not text or a whole number"),
        *((garbage(suffix), "x") for suffix in SUFFIXES),
        *((empty(suffix), "is empty") for suffix in SUFFIXES),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, write: Callable[[Path], Path], says: str) -> None:
    path = write(tmp_path)
    with pytest.raises(ExchangeError) as caught:
        import_store(open_sources(str(path)), {}, tmp_path / "s.zarr", "x", skip=frozenset({"dimensions"}))
    text = str(caught.value)
    assert text.startswith(str(tmp_path))
    assert says in text
    assert "\n" not in text
    assert not (tmp_path / "sprung").exists()
    assert not [path for path in tmp_path.iterdir() if "zarr" in path.name]


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("")
    with pytest.raises(ExchangeError, match=r"unknown suffix; the known ones are \.ark, \.csv.*--format"):
        open_sources(str(tmp_path / "x.xyz"))


@pytest.mark.parametrize(("form", "package"), [("ark", "kaldiio"), ("csv", "pyarrow"), ("parquet", "pyarrow")])
def test_a_package_that_is_not_there_is_named_by_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name, name=package)

    monkeypatch.setattr(formats, "import_module", absent)
    (tmp_path / f"x.{form}").write_text("")
    with pytest.raises(ExchangeError, match=rf"x.{form}: {form} files need pip install '\.\[exchange\]'"):
        open_sources(str(tmp_path / f"x.{form}"))


@pytest.mark.parametrize(
    ("form", "name", "says"),
    [
        ("hdf5", "a\0b", "has a NUL"),
        ("hyperion", "a\0b", "has a NUL"),
        ("npz", "a\0", "ends with a NUL"),
        ("ark", "two words", "white space"),
        ("npy", "two\nlines", "line break"),
        ("hyperion", "a//b", "name of a"),
        ("hyperion", "ok/b", "name of a"),
    ],
)
def test_an_id_that_a_format_cannot_hold_leaves_no_file(tmp_path: Path, form: str, name: str, says: str) -> None:
    write_store(tmp_path / "s.zarr", ["ok", name], VALUES[:2, None, None], np.full(2, OK, np.uint8), {"dim": 3})
    with pytest.raises(ExchangeError, match=says):
        export_store(EmbeddingStore.open(tmp_path / "s.zarr"), tmp_path / "o.x", form)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("form", ["npy", "ark"])
def test_a_mark_of_an_encoding_is_no_id_of_a_list(tmp_path: Path, form: str) -> None:
    write_store(tmp_path / "s.zarr", ["\ufeffa", "b"], VALUES[:2, None, None], np.full(2, OK, np.uint8), {"dim": 3})
    with pytest.raises(ExchangeError, match="begins with U\\+FEFF"):
        export_store(EmbeddingStore.open(tmp_path / "s.zarr"), tmp_path / "o.x", form)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_numbers_of_vectors_are_not_taken_for_ids(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", VALUES, delimiter=",")
    with pytest.raises(ExchangeError, match="seems to be a number of the vector, not an id"):
        open_sources(str(tmp_path / "x.csv"))
    lines = "".join(f"{number / 10},1,2,3\n" for number in range(1, 5))
    (tmp_path / "y.csv").write_text(f"utterance,a,b,c\n{lines}".replace("a,b,c", "e0,e1,e2"))
    import_store(open_sources(str(tmp_path / "y.csv")), {}, tmp_path / "s.zarr", "x")
    assert EmbeddingStore.open(tmp_path / "s.zarr").utterances == ("0.1", "0.2", "0.3", "0.4")


def test_a_url_is_told_to_be_no_path() -> None:
    with pytest.raises(ExchangeError, match="is a URL; files are imported from a path"):
        open_sources("file:///tmp/x.npy")


def test_nothing_is_left_of_an_import_that_failed_unforeseen(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", embeddings=VALUES, ids=np.array(IDS))

    def stopped(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_store(open_sources(str(tmp_path / "x.npz")), {}, tmp_path / "s.zarr", "x", progress=stopped)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_a_matrix_in_an_archive_is_no_vector(tmp_path: Path) -> None:
    kaldiio.save_ark(str(tmp_path / "x.ark"), {"a": VALUES})
    with pytest.raises(ExchangeError, match=r"a is not a vector: its shape is \[4, 3\]\. Give a vector for each id"):
        open_sources(str(tmp_path / "x.ark"))
