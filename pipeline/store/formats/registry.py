"""The formats by name and by suffix."""

import glob
from importlib import import_module
from pathlib import Path
from types import ModuleType

from pipeline.errors import ExchangeError
from pipeline.store.formats.columns import own_ids
from pipeline.store.formats.reader import VectorReader, VectorTable, joined

_MODULES = {
    "npy": "npy",
    "npz": "npy",
    "hdf5": "hdf5",
    "hyperion": "hdf5",
    "ark": "kaldi",
    "scp": "kaldi",
    "parquet": "parquet",
    "csv": "csv",
    "pt": "pytorch",
    "pt-dict": "pytorch",
}
FORMATS = tuple(_MODULES)

_WITHOUT_IDS = ("npy", "npz", "hdf5")
"""Formats whose files may hold no ids."""

KEYED = ("hyperion", "pt-dict")
"""Formats that hold an id once at most."""

SUFFIXES = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".ark": "ark",
    ".scp": "scp",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".pt": "pt",
    ".pth": "pt",
}

_PACKAGES = ("kaldiio", "pyarrow")


def open_sources(pattern: str, form: str | None = None, ids: Path | None = None) -> VectorReader:
    """Open a file of embeddings, or all files that a pattern such as `xvector.*.ark` matches, in the order of names.

    Args:
        pattern: a path, or a pattern with `*`, `?` or `[…]`.
        form: one of `FORMATS`; that of the suffix if not given.
        ids: text file of the ids of a single file that holds none; that beside the file if not given.

    Raises:
        ExchangeError: there is no such file, its format is unknown or needs a package, or it cannot be read.
    """
    paths = [Path(pattern)] if Path(pattern).exists() else [Path(name) for name in sorted(glob.glob(pattern))]
    if not paths and "://" in pattern:
        raise ExchangeError(f"{pattern}: is a URL; files are imported from a path. Copy it to this machine.")
    if not paths:
        raise ExchangeError(f"{pattern}: no such file. Check the path, or the pattern.")
    return joined([open_file(path, form, ids) for path in paths], pattern)


def open_file(path: Path, form: str | None = None, ids: Path | None = None) -> VectorReader:
    """Open one file of embeddings; see `open_sources`."""
    if not path.is_file():
        raise ExchangeError(f"{path}: is no file. Give a file of embeddings.")
    form = form or format_of(path)
    module = _module(path, form)
    if not path.stat().st_size:
        raise ExchangeError(f"{path}: is empty, of no bytes. Copy or make it again.")
    if ids is not None and form not in _WITHOUT_IDS:
        raise own_ids(path, f"as all {form} files")
    source: VectorReader = module.open_source(path, form, ids)
    return source


def write_file(path: Path, form: str, vectors: VectorTable) -> None:
    """Write a file of embeddings, whole or not at all.

    Raises:
        ExchangeError: the format needs a package, or cannot hold an id.
    """
    _module(path, form).write(path, form, vectors)


def format_of(path: Path) -> str:
    """Return the format of a file's suffix.

    Raises:
        ExchangeError: it is none of `SUFFIXES`.
    """
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(SUFFIXES))
        raise ExchangeError(f"{path}: no known suffix; there are {known}. Name the format with --format.") from None


def _module(path: Path, form: str) -> ModuleType:
    try:
        return import_module(f"pipeline.store.formats.{_MODULES[form]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _PACKAGES:
            raise
        raise ExchangeError(f"{path}: {form} files need pip install 'speaker-seed[exchange]'.") from None
