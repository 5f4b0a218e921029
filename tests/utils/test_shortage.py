import errno
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from pipeline.audio import reading
from pipeline.errors import ResourceError, WeightsError
from pipeline.model.model_file import load_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.formats.registry import open_sources
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.utils.checkpoint import read_checkpoint
from pipeline.utils.shortage import find_shortage, raise_shortage
from stages.cli import main

pytestmark = pytest.mark.endurance

DIM = 8
VALUES = np.random.default_rng(0).standard_normal((6, 1, 1, DIM)).astype(np.float32)
READERS = {
    "s.zarr": EmbeddingStore.open,
    "a.wav": lambda path: reading.read_audio(path),
    "b.wav": lambda path: reading.read_duration(path),
    "c.wav": lambda path: reading.read_piece(path, 0, 100),
    "m.safetensors": load_model,
    "w.safetensors": read_checkpoint,
    "w.pt": read_checkpoint,
    **{
        f"e.{suffix}": lambda path: list(open_sources(str(path)).blocks())
        for suffix in ("h5", "npz", "pt", "csv", "parquet")
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_store(tmp_path / "s.zarr", list("abcdef"), VALUES, np.full(6, OK, np.uint8), {"dim": DIM})
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    tensors = {"a": torch.ones(3)}
    save_file(tensors, tmp_path / "m.safetensors")
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pt")
    for suffix in ("h5", "npz", "pt", "csv", "parquet"):
        main(["export", str(tmp_path / "s.zarr"), "--out", str(tmp_path / f"e.{suffix}")])
    for name, read in READERS.items():  # what is imported on first use opens files of its own
        with suppress(WeightsError):  # m.safetensors is no model
            read(tmp_path / name)
    return tmp_path


@contextmanager
def no_handles() -> Iterator[None]:
    """Leave no file handle to open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", READERS)
def test_lack_of_handles_is_no_damage(folder: Path, name: str) -> None:
    with no_handles(), pytest.raises((ResourceError, OSError), match=r"(?i)too many open files") as said:
        READERS[name](folder / name)
    assert find_shortage(said.value) == errno.EMFILE
    assert "\n" not in str(said.value)
    assert str(folder / name) in str(said.value)


def test_lack_of_threads_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = EmbeddingStore.open(folder / "s.zarr")
    monkeypatch.setattr("pipeline.store.zarr_access.zarr.open_group", lambda *_, **__: refuse(threading.Thread()))
    with pytest.raises(ResourceError, match=r"s\.zarr: cannot start another thread or process\. Raise"):
        store.read()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), errno.ENOMEM),
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
            errno.ENOMEM,
        ),
        (RuntimeError("unable to mmap 64 bytes from file <a>: Cannot allocate memory (12)"), errno.ENOMEM),
        (ImportError("libx.so: failed to map segment from shared object"), errno.ENOMEM),
        (OSError("Unable to open file (errno = 24, error message = 'x')"), errno.EMFILE),
        (ValueError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("can't start new thread"), errno.EAGAIN),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), None),
        (ValueError("checksum mismatch"), None),
    ],
)
def test_what_the_machine_lacks_is_found_in_errors_and_their_causes(error: Exception, code: int | None) -> None:
    wrapped = KeyError("chunk")
    wrapped.__cause__ = error
    assert find_shortage(error) == find_shortage(wrapped) == code
    if code is None:
        raise_shortage(error, "here")
    else:
        with pytest.raises(ResourceError, match=r"^here: "):
            raise_shortage(error, "here")


def test_a_command_without_memory_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(EmbeddingStore, "shards", fail)
    with pytest.raises(SystemExit, match="1"):
        main(["export", str(folder / "s.zarr"), "--out", str(folder / "x.npz")])
    said = capsys.readouterr().err
    assert said.startswith("seed: error: not enough memory. ")
    assert said.count("\n") == 1
    assert not (folder / "x.npz").exists()
    assert h5py.File(folder / "e.h5")["ids"].shape == (6,)
