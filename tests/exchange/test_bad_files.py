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
from pipeline.exchange import formats
from pipeline.exchange.exporting import export_store
from pipeline.exchange.formats import open_sources
from pipeline.exchange.importing import import_store
from pipeline.journal import write_store
from pipeline.store import OK, EmbeddingStore

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
        (trap_pt, "nothing else is loaded"),
        (trap_ark, "no vector of floating point"),
        (trap_scp, "x.scp:1: is a command, which is not run"),
        (cut_ark, "truncated in d"),
        (cut_listed, "truncated in d"),
        (open_text, "there is no ] to its ["),
        (scp_without_ark, "gone.ark, which is not there"),
        (two_tables, "2 datasets of vectors (x, y). Name the one that is meant 'embeddings'"),
        (compressed_by_hyperion, "is compressed"),
        (no_text, "no columns of text"),
        (a_column_is_missing, "column e2 is not there"),
        (csv_with_words, "two"),
        (ragged_csv, "not a readable CSV file"),
        (lambda folder: folder / "none.npy", "no such file"),
        (lambda folder: folder / "*.npy", "no such file"),
        (lambda folder: folder, "is no file"),
        *((garbage(suffix), "x") for suffix in SUFFIXES),
        *((empty(suffix), "x") for suffix in SUFFIXES),
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
    with pytest.raises(ExchangeError, match=r"no known suffix; there are \.ark, \.csv.*--format"):
        open_sources(str(tmp_path / "x.xyz"))


@pytest.mark.parametrize(("form", "package"), [("ark", "kaldiio"), ("csv", "pyarrow"), ("parquet", "pyarrow")])
def test_a_package_that_is_not_there_is_named_by_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name, name=package)

    monkeypatch.setattr(formats, "import_module", absent)
    (tmp_path / f"x.{form}").write_text("")
    with pytest.raises(ExchangeError, match=rf"x.{form}: {form} files need pip install 'speaker-seed\[exchange\]'"):
        open_sources(str(tmp_path / f"x.{form}"))


@pytest.mark.parametrize(
    ("form", "name", "says"),
    [("ark", "two words", "white space"), ("npy", "two\nlines", "line break"), ("hyperion", "a//b", "name of a")],
)
def test_an_id_that_a_format_cannot_hold_leaves_no_file(tmp_path: Path, form: str, name: str, says: str) -> None:
    write_store(tmp_path / "s.zarr", ["ok", name], VALUES[:2, None, None], np.full(2, OK, np.uint8), {"dim": 3})
    with pytest.raises(ExchangeError, match=says):
        export_store(EmbeddingStore.open(tmp_path / "s.zarr"), tmp_path / "o.x", form)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]
