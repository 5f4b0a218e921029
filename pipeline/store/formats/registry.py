"""File formats by name and by suffix. A format is a module that reads and writes it, and one line of `BUILT_IN`."""

import glob
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, ExchangeError
from pipeline.store.formats.columns import redundant_ids_error
from pipeline.utils.plugins import find_plugins, load_plugin

if TYPE_CHECKING:  # NumPy would slow `seed import --help` down
    from pipeline.store.formats.reader import VectorReader, VectorTable


@dataclass(frozen=True)
class Format:
    """A file format of embeddings.

    Its module is imported on first use and has two functions, which take the format's name as `form`:

        open_reader(path: Path, form: str, ids: Path | None) -> VectorReader
        write_table(path: Path, form: str, vectors: VectorTable) -> None

    Other packages register a format by an entry point in the group `speaker_seed.formats` with the format's name. It
    points to a `Format`, whose module may be the one that defines it (`__name__`).
    """

    name: str
    suffixes: tuple[str, ...]
    """Suffixes in lower case. A format without suffixes must be selected by name."""
    module: str
    """Dotted name of the module."""
    optional_ids: bool = False
    """True if files may hold no ids, which then come from a text file."""
    unique_ids: bool = False
    """True if a file holds each id at most once."""
    package: str = ""
    """The package of the extra `exchange` that the module imports."""


BUILT_IN = (
    Format("npy", (".npy",), "pipeline.store.formats.npy", optional_ids=True),
    Format("npz", (".npz",), "pipeline.store.formats.npy", optional_ids=True),
    Format("hdf5", (".h5", ".hdf5"), "pipeline.store.formats.hdf5", optional_ids=True),
    Format("hyperion", (), "pipeline.store.formats.hdf5", unique_ids=True),
    Format("ark", (".ark",), "pipeline.store.formats.kaldi", package="kaldiio"),
    Format("scp", (".scp",), "pipeline.store.formats.kaldi", package="kaldiio"),
    Format("parquet", (".parquet", ".pq"), "pipeline.store.formats.parquet", package="pyarrow"),
    Format("csv", (".csv", ".tsv"), "pipeline.store.formats.csv", package="pyarrow"),
    Format("pt", (".pt", ".pth"), "pipeline.store.formats.pytorch"),
    Format("pt-dict", (), "pipeline.store.formats.pytorch", unique_ids=True),
)


def format_names() -> list[str]:
    """Return the names of all registered formats, without importing their modules."""
    return list(dict.fromkeys([*(each.name for each in BUILT_IN), *sorted(find_plugins("formats"))]))


def find_format(path: Path, name: str | None = None) -> Format:
    """Return the format of a name, or of a file's suffix if no name is given.

    Raises:
        ExchangeError: no format has that name or suffix.
        ConfigError: a package that registers a format cannot be imported.
    """
    for each in BUILT_IN:
        if each.name == name if name else path.suffix.lower() in each.suffixes:
            return each
    plugins = [_load_plugin(each) for each in sorted(find_plugins("formats")) if name in (None, each)]
    if name and not plugins:
        raise ExchangeError(f"{path}: no format {name!r}; the formats are {', '.join(format_names())}.")
    for each in plugins:
        if name or path.suffix.lower() in each.suffixes:
            return each
    known = ", ".join(sorted({suffix for each in (*BUILT_IN, *plugins) for suffix in each.suffixes}))
    raise ExchangeError(f"{path}: unknown suffix; the known ones are {known}. Name the format with --format.")


def _load_plugin(name: str) -> Format:
    plugin = load_plugin("formats", name)
    if not isinstance(plugin, Format):
        raise ConfigError(f"plugin {name} (speaker_seed.formats): is a {type(plugin).__name__}; register a Format.")
    return plugin


def open_sources(pattern: str, form: str | None = None, ids: Path | None = None) -> "VectorReader":
    """Open a file of embeddings, or all files that a pattern such as `xvector.*.ark` matches, in the order of names.

    Args:
        pattern: a path, or a pattern with `*`, `?` or `[…]`.
        form: name of the format; that of the suffix if not given.
        ids: text file with the ids of a single file that holds none; the one beside the file if not given.

    Raises:
        ExchangeError: there is no such file, its format is unknown or needs a package, or it cannot be read.
    """
    from pipeline.store.formats.reader import join_readers

    paths = [Path(pattern)] if Path(pattern).exists() else [Path(name) for name in sorted(glob.glob(pattern))]
    if not paths and "://" in pattern:
        raise ExchangeError(f"{pattern}: is a URL; files are imported from a path. Copy it to this machine.")
    if not paths:
        raise ExchangeError(f"{pattern}: no such file. Check the path, or the pattern.")
    return join_readers([open_file(path, form, ids) for path in paths], pattern)


def open_file(path: Path, form: str | None = None, ids: Path | None = None) -> "VectorReader":
    """Open one file of embeddings; see `open_sources`."""
    if not path.is_file():
        raise ExchangeError(f"{path}: is a folder, a pipe or a device. Give a file of embeddings.")
    found = find_format(path, form)
    module = _import_module(path, found)
    if not path.stat().st_size:
        raise ExchangeError(f"{path}: is empty. Copy or make it again.")
    if ids is not None and not found.optional_ids:
        raise redundant_ids_error(path, f"like all {found.name} files")
    reader: VectorReader = module.open_reader(path, found.name, ids)
    return reader


def write_file(path: Path, form: Format, vectors: "VectorTable") -> None:
    """Write a file, whole or not at all; raise ExchangeError if its format lacks a package or cannot hold an id."""
    _import_module(path, form).write_table(path, form.name, vectors)


def _import_module(path: Path, form: Format) -> ModuleType:
    try:
        return import_module(form.module)
    except ModuleNotFoundError as error:
        if not form.package or (error.name or "").partition(".")[0] != form.package:
            raise
        raise ExchangeError(f"{path}: {form.name} files need pip install '.[exchange]' (docs/install.md).") from None
