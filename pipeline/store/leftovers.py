"""What killed or abandoned runs have left beside the stores, and its removal."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import OutputError, StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import DENOISE, MISSING, OK
from pipeline.store.writer import STORE, journal_of
from pipeline.utils.atomic import locked
from pipeline.utils.paths import ENTRY

_JOURNAL = ".journal"

Describe = Callable[[Path], str | None]
"""A function that returns what a folder with a saved training holds, or None if it holds none."""


@dataclass(frozen=True)
class Leftover:
    """A folder that is of use only to a run with the same parameters, if to any."""

    folder: Path
    what: str
    """For people: what it holds."""
    size: int
    """Bytes."""


def leftovers(root: Path, describe_training: Describe) -> tuple[list[Leftover], list[Path]]:
    """Return what unfinished extractions, trainings and moves left below a folder, and the journals in use now.

    Unfinished extractions are not lost work: the same command goes on from them, and one of another manifest takes the
    rows that they have in common. So does the same training, with --resume.
    """
    found, busy = [], []
    for journal in sorted(root.rglob(f".*{_JOURNAL}")):
        if journal.is_dir():
            try:
                locked(journal).close()
            except OutputError:
                busy.append(journal)
                continue
            found += [
                Leftover(folder, _described(folder, describe_training), _size(folder)) for folder in _inside(journal)
            ]
    for folder in sorted(root.rglob(".*.old.*")):
        if folder.is_dir() and not (folder.parent / f"{folder.name.rpartition('.old.')[0]}{_JOURNAL}").exists():
            found.append(Leftover(folder, "a store that another has replaced", _size(folder)))
    return found, busy


def remove(leftover: Leftover) -> None:
    """Delete a leftover, and its journal if that was all.

    Raises:
        OutputError: a run has begun to use the journal meanwhile.
    """
    journal = leftover.folder.parent
    if not journal.name.endswith(_JOURNAL):
        shutil.rmtree(leftover.folder)
        return
    with locked(journal):
        shutil.rmtree(leftover.folder)
        if not list(_inside(journal)):
            shutil.rmtree(journal)


def saved(target: Path, entry: bytes) -> None:
    """Take away what the journal of `target` has kept of a finished store, given the zarr.json of one that is safe.

    Raises:
        OutputError: a run is using the journal.
    """
    journal = journal_of(target)
    if not isinstance(journal, Path) or not journal.is_dir():
        return
    with locked(journal):
        for folder in list(_inside(journal)):
            kept = folder / STORE / ENTRY
            if kept.is_file() and kept.read_bytes() == entry:
                shutil.rmtree(folder)
        if not list(_inside(journal)):
            shutil.rmtree(journal)


def _inside(journal: Path) -> Iterator[Path]:
    return (path for path in sorted(journal.iterdir()) if path.is_dir())


def _described(folder: Path, describe_training: Describe) -> str:
    if folder.name == "training":
        return describe_training(folder) or "nothing of use"
    try:
        store = EmbeddingStore.open(folder / STORE, unfinished=True)
        views = ", ".join(view["name"] for view in store.attributes["recipe"]["views"])
        done = int((store.status == OK).sum())
        kept = "" if (store.status == MISSING).any() else ", finished: kept until DVC has it in its cache"
        encoder = ", ".join(filter(None, (store.attributes["encoder"], store.attributes.get(DENOISE))))
        return f"{done:,} of {len(store.utterances):,} utterances, {encoder}, {views}{kept}"
    except (StoreError, KeyError, TypeError):
        return "nothing of use"


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
