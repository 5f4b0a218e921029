"""Small files that declare more than they hold, or that lead to other files."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.lib import format as npy_format

from pipeline.audio.augment.sofa import read_responses
from pipeline.errors import AudioError, ExchangeError, StoreError
from pipeline.store.formats.import_store import import_store
from pipeline.store.formats.registry import open_sources

pytestmark = pytest.mark.endurance

SECRET = np.linspace(0.5, 1.5, 12, dtype=np.float32).reshape(4, 3)
HUGE = 10**9


def hdf5(fill: Callable[[h5py.File], None], keyed: bool = False) -> Callable[[Path], Path]:
    """Write a file with ids, unless `keyed`, and what `fill` adds."""

    def write(folder: Path) -> Path:
        with h5py.File(folder / "secret.h5", "w") as file:
            file["embeddings"] = SECRET
        (folder / "secret.bin").write_bytes(SECRET.tobytes())
        os.mkfifo(folder / "pipe")
        with h5py.File(folder / "x.h5", "w") as file:
            if not keyed:
                file["ids"] = list("abcd")
            fill(file)
        return folder / "x.h5"

    return write


def beside(file: h5py.File, name: str) -> str:
    return str(Path(file.filename).with_name(name))


def external_link(file: h5py.File) -> None:
    file["embeddings"] = h5py.ExternalLink(beside(file, "secret.h5"), "/embeddings")


def link_to_a_pipe(file: h5py.File) -> None:
    file["embeddings"] = h5py.ExternalLink(beside(file, "pipe"), "/embeddings")


def soft_link_through_an_external_one(file: h5py.File) -> None:
    file["z"] = h5py.ExternalLink(beside(file, "secret.h5"), "/")
    file["embeddings"] = h5py.SoftLink("/z/embeddings")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("embeddings", (4, 3), "f4", external=[(beside(file, "secret.bin"), 0, SECRET.nbytes)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(beside(file, "secret.h5"), "embeddings", (4, 3))
    file.create_virtual_dataset("embeddings", layout)


def external_vector(file: h5py.File) -> None:
    file.create_dataset("a", (3,), "f4", external=[(beside(file, "secret.bin"), 0, 12)])


def many_rows(file: h5py.File) -> None:
    del file["ids"]
    file.create_dataset("embeddings", (HUGE, 192), "f4", chunks=(1000, 192))
    file.create_dataset("ids", (HUGE,), h5py.string_dtype(), chunks=(1000,))


def many_packed_rows(file: h5py.File) -> None:
    del file["ids"]
    file.create_dataset("embeddings", (HUGE, 192), "f4", chunks=(1000, 192), compression="gzip")[0] = 1
    file.create_dataset("ids", (HUGE,), "S8", chunks=(1000,), compression="gzip")[0] = b"a"


def one_huge_vector(file: h5py.File) -> None:
    file.create_dataset("a", (10**12,), "f4", chunks=(1000,))


def exponential_groups(file: h5py.File) -> None:
    last = file.create_group("g0")
    last["v"] = SECRET[0]
    for level in range(1, 40):
        group = file.create_group(f"g{level}")
        group["a"] = group["b"] = last
        last = group


def long_id(file: h5py.File) -> None:
    del file["ids"]
    file["embeddings"] = SECRET
    file.create_dataset("ids", data=["a" * 10**6, "b", "c", "d"], dtype=h5py.string_dtype())


def npz_that_declares_more(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        for name, shape, dtype in (("embeddings", (HUGE, 192), "<f4"), ("ids", (HUGE,), "<U1000")):
            with archive.open(f"{name}.npy", "w") as file:
                npy_format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": True, "shape": shape})
                file.write(b"0" * 100)
    return folder / "x.npz"


def keyed_npz_that_declares_more(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.npz", "w") as archive, archive.open("a.npy", "w") as file:
        npy_format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    return folder / "x.npz"


def overlapping_zip(folder: Path) -> Path:
    """Write an archive whose list names the same packed bytes many times."""
    np.savez(folder / "x.npz", a=np.ones(3000, np.float32))
    content = (folder / "x.npz").read_bytes()
    start = content.index(b"PK\1\2")
    entry, end = content[start : content.index(b"PK\5\6")], content[content.index(b"PK\5\6") :]
    entries = b"".join(entry.replace(b"a.npy", b"%c.npy" % (97 + number)) for number in range(20))
    end = end[:8] + struct.pack("<HHII", 20, 20, len(entries), start) + end[20:]
    (folder / "x.npz").write_bytes(content[:start] + entries + end)
    return folder / "x.npz"


def repeated_parquet(folder: Path) -> Path:
    count = 4_000_000
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array(["a"]))
    pq.write_table(pa.table({"utterance": one, "e0": pa.array(np.zeros(count, np.float32))}), folder / "x.parquet")
    return folder / "x.parquet"


def repeated_tensor(folder: Path) -> Path:
    torch.save({"ids": ["a", "b"], "embeddings": torch.ones(1, 1).expand(2, 10**12)}, folder / "x.pt")
    return folder / "x.pt"


def repeated_vector(folder: Path) -> Path:
    torch.save({"a": torch.ones(1).expand(10**12)}, folder / "x.pt")
    return folder / "x.pt"


def huge_ark(folder: Path) -> Path:
    (folder / "x.ark").write_bytes(b"a \0BFV \4" + struct.pack("<i", 2**31 - 1) + bytes(16))
    return folder / "x.ark"


def huge_matrix(folder: Path) -> Path:
    (folder / "x.ark").write_bytes(b"a \0BDM \4" + struct.pack("<ici", 2**31 - 1, b"\4", 2**31 - 1) + bytes(16))
    return folder / "x.ark"


@pytest.mark.parametrize(
    ("write", "says"),
    [
        *((hdf5(fill), "which is not followed") for fill in (external_link, link_to_a_pipe)),
        (hdf5(soft_link_through_an_external_one), "which is not followed"),
        *((hdf5(fill), "is stored in other files, which are not read") for fill in (external_storage, virtual)),
        (hdf5(external_vector, keyed=True), "is stored in other files"),
        *((hdf5(fill), "bytes, but the file holds") for fill in (many_rows, many_packed_rows)),
        (hdf5(one_huge_vector, keyed=True), "bytes, but the file holds"),
        (hdf5(exponential_groups, keyed=True), "is a group that is there by another name"),
        (hdf5(long_id), "an id of 1,000,000 characters"),
        *((write, "is truncated, its header says") for write in (npz_that_declares_more, keyed_npz_that_declares_more)),
        (overlapping_zip, "declares more than its bytes can hold"),
        (repeated_parquet, "which cannot hold them"),
        *((write, "more than it stores") for write in (repeated_tensor, repeated_vector)),
        *((write, "truncated in a") for write in (huge_ark, huge_matrix)),
    ],
)
def test_it_is_refused_before_it_is_read(tmp_path: Path, write: Callable[[Path], Path], says: str) -> None:
    path = write(tmp_path)
    assert path.stat().st_size < 2**21
    with pytest.raises((ExchangeError, StoreError), match=says) as said:
        import_store(open_sources(str(path)), {}, tmp_path / "s.zarr", "x")
    assert "\n" not in str(said.value)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("form", ["hdf5", "hyperion"])
def test_no_other_file_is_handed_out(tmp_path: Path, form: str) -> None:
    path = hdf5(external_link)(tmp_path)
    with pytest.raises(ExchangeError, match="which is not followed"):
        open_sources(str(path), form)


def test_room_responses_stay_within_their_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["ir"] = np.ones((1, 1, 8))
    with h5py.File(tmp_path / "x.sofa", "w") as file:
        file["Data.SamplingRate"] = [16000.0]
        file["Data.IR"] = h5py.ExternalLink(str(tmp_path / "r.h5"), "/ir")
    with pytest.raises(AudioError, match=r"x\.sofa: 'Data\.IR' is a link to another place or file"):
        read_responses(tmp_path / "x.sofa")


def test_what_is_packed_well_is_still_read(tmp_path: Path) -> None:
    ids, values = [f"u{number}" for number in range(5000)], np.ones((5000, 192), np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("embeddings", data=values, compression="gzip", compression_opts=9)
        file.create_dataset("ids", data=ids, dtype=h5py.string_dtype(), compression="gzip")
    np.savez_compressed(tmp_path / "x.npz", ids=ids, embeddings=values)
    for name in ("x.h5", "x.npz"):
        import_store(open_sources(str(tmp_path / name)), {}, tmp_path / f"{name}.zarr", "x")
