"""Outputs of DVC's: it deletes them before a stage runs, and has them in its cache some time after it ran."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.store.leftovers import saved
from pipeline.store.writer import journal_of
from pipeline.utils.paths import ENTRY, Place


@contextmanager
def previous_output(out: Place) -> Iterator[Path | None]:
    """Yield a folder of links to what DVC's cache holds of the last version of `out`; None if it does not hold it.

    The version is the one that `dvc.lock` names; while `out` is there, nobody needs it. The folder lies in the journal
    of `out`, and is taken away again.
    """
    listing = None if not isinstance(out, Path) or out.exists() else _listing(out)
    if listing is None or not isinstance(out, Path):
        yield None
        return
    journal = journal_of(out)
    journal.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=str(journal), prefix="previous."))
    try:
        for name, cached in listing.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(cached)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if journal.is_dir() and not any(journal.iterdir()):
            journal.rmdir()


def by_dvc() -> bool:
    """Whether this is a stage that DVC runs."""
    return "DVC_STAGE" in os.environ


def forget_saved(folder: Place) -> None:
    """Take away what the journals in a folder keep of stores that DVC has in its cache by now."""
    if not by_dvc() or not isinstance(folder, Path) or not folder.is_dir():
        return
    for journal in folder.glob(".*.zarr.journal"):
        target = folder / journal.name.removeprefix(".").removesuffix(".journal")
        cached = (_listing(target) or {}).get(ENTRY)
        if cached is not None:
            with suppress(OutputError):  # in use
                saved(target, cached.read_bytes())


def _listing(out: Path) -> dict[str, Path] | None:
    """Return the files of the folder `out` as DVC last saved it, by their names in it, all of them in its cache."""
    place = Path(os.path.abspath(out))
    root = next((folder for folder in place.parents if (folder / ".dvc").is_dir()), None)
    if root is None or not (root / "dvc.lock").is_file():
        return None
    digest = _digest(root, place)
    cache = digest and _cache(root, digest)
    if not digest or not cache:
        return None
    try:
        files = json.loads((cache / digest[:2] / digest[2:]).read_text(encoding="utf-8"))
        found = {str(file["relpath"]): cache / file["md5"][:2] / file["md5"][2:] for file in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    safe = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in found)
    return found if safe and all(path.is_file() for path in found.values()) else None


def _digest(root: Path, place: Path) -> str | None:
    """Return the MD5 that `dvc.lock` has of an output."""
    from pipeline.errors import SeedError
    from pipeline.utils.validation import load_yaml

    try:
        stages: Any = load_yaml(root / "dvc.lock").get("stages", {})
        outs = [out for stage in stages.values() for out in stage.get("outs", ())]
        return next((str(out["md5"]) for out in outs if root / out["path"] == place), None)
    except (SeedError, AttributeError, KeyError, TypeError):
        return None


def _cache(root: Path, digest: str) -> Path | None:
    """Return the folder of DVC's cache in which files lie by their MD5, given one of them."""
    usual = root / ".dvc" / "cache" / "files" / "md5"
    if (usual / digest[:2] / digest[2:]).is_file():
        return usual  # asking DVC takes a second
    try:
        told = subprocess.run(["dvc", "cache", "dir"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return root / told.stdout.strip() / "files" / "md5"
