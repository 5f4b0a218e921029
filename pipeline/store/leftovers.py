"""Leftovers of killed or abandoned runs beside the stores, and their removal."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import OutputError, StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.journal import STORE, journal_of
from pipeline.store.schema import DENOISE, MISSING, OK
from pipeline.utils.atomic import lock_folder
from pipeline.utils.paths import ENTRY, remove_folder

_JOURNAL = ".journal"

Describe = Callable[[Path], str | None]
"""A function that describes the saved training in a folder, or returns None if there is none."""


@dataclass(frozen=True)
class Leftover:
    """A folder that only a run with the same parameters could use."""

    folder: Path
    what: str
    """Description of the content for the user."""
    size: int
    """Size in bytes."""


def find_leftovers(root: Path, describe_training: Describe) -> tuple[list[Leftover], list[Path]]:
    """Return the leftovers of extractions, trainings and moves below a folder, and the journals in use.

    Unfinished extractions are not lost work: the same command resumes them, and an extraction of another manifest
    reuses the rows that both have. The same training resumes with --resume.
    """
    found, busy = [], []
    for journal in sorted(root.rglob(f".*{_JOURNAL}")):
        if journal.is_dir():
            try:
                lock_folder(journal).close()
            except OutputError:
                busy.append(journal)
                continue
            for folder in _subfolders(journal):
                found.append(Leftover(folder, _describe(folder, describe_training), _size(folder)))
    for folder in sorted(root.rglob(".*.old.*")):
        if folder.is_dir() and not (folder.parent / f"{folder.name.rpartition('.old.')[0]}{_JOURNAL}").exists():
            found.append(Leftover(folder, "a store that another has replaced", _size(folder)))
    return found, busy


def remove_leftover(leftover: Leftover) -> None:
    """Delete a leftover, and its journal if that is then empty; raise OutputError if a run is using the journal."""
    journal = leftover.folder.parent
    if not journal.name.endswith(_JOURNAL):
        shutil.rmtree(leftover.folder)
        return
    with lock_folder(journal):
        remove_folder(leftover.folder / STORE)
        shutil.rmtree(leftover.folder)
        if not list(_subfolders(journal)):
            shutil.rmtree(journal)


def discard_copy(target: Path, entry: bytes) -> None:
    """Remove the copy of a finished store that the journal of `target` keeps, given the zarr.json of a safe copy.

    Raise OutputError if a run is using the journal.
    """
    journal = journal_of(target)
    if not isinstance(journal, Path) or not journal.is_dir():
        return
    with lock_folder(journal):
        for folder in list(_subfolders(journal)):
            kept = folder / STORE / ENTRY
            if kept.is_file() and kept.read_bytes() == entry:
                remove_folder(kept.parent)  # a kill on the way leaves no damaged store
                shutil.rmtree(folder)
        if not list(_subfolders(journal)):
            shutil.rmtree(journal)


def _subfolders(journal: Path) -> Iterator[Path]:
    return (path for path in sorted(journal.iterdir()) if path.is_dir())


def _describe(folder: Path, describe_training: Describe) -> str:
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
