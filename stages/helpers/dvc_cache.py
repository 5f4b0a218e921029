"""Stage outputs under DVC, which deletes them before a stage runs and puts them into its cache some time after."""

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
from pipeline.store.journal import journal_of
from pipeline.store.leftovers import discard_copy
from pipeline.utils.paths import ENTRY, Place


@contextmanager
def previous_output(out: Place) -> Iterator[Path | None]:
    """Yield a folder of links to the last version of `out` in DVC's cache, or None if the cache does not hold it.

    The last version is the one in `dvc.lock`. It is not needed, and None is yielded, while `out` exists. The folder
    lies in the journal of `out` and is removed afterwards.
    """
    listing = None if not isinstance(out, Path) or out.exists() else _read_listing(out)
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


def is_run_by_dvc() -> bool:
    """Return whether DVC runs this command as a stage."""
    return "DVC_STAGE" in os.environ


def remove_cached_journals(folder: Place) -> None:
    """Remove the copies of stores that journals in a folder keep, if DVC has the stores in its cache by now."""
    if not is_run_by_dvc() or not isinstance(folder, Path) or not folder.is_dir():
        return
    for journal in folder.glob(".*.zarr.journal"):
        target = folder / journal.name.removeprefix(".").removesuffix(".journal")
        cached = (_read_listing(target) or {}).get(ENTRY)
        if cached is not None:
            with suppress(OutputError):  # in use
                discard_copy(target, cached.read_bytes())


def _read_listing(out: Path) -> dict[str, Path] | None:
    """Return the paths in DVC's cache of the files in folder `out`, by name. None if the cache does not hold all."""
    output = Path(os.path.abspath(out))
    root = next((folder for folder in output.parents if (folder / ".dvc").is_dir()), None)
    if root is None or not (root / "dvc.lock").is_file():
        return None
    digest = _find_digest(root, output)
    cache = digest and _find_cache(root, digest)
    if not digest or not cache:
        return None
    try:
        files = json.loads((cache / digest[:2] / digest[2:]).read_text(encoding="utf-8"))
        paths = {str(file["relpath"]): cache / file["md5"][:2] / file["md5"][2:] for file in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    safe = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in paths)
    return paths if safe and all(path.is_file() for path in paths.values()) else None


def _find_digest(root: Path, output: Path) -> str | None:
    """Return the MD5 of an output in `dvc.lock`."""
    from pipeline.errors import SeedError
    from pipeline.utils.validation import load_yaml

    try:
        stages: Any = load_yaml(root / "dvc.lock").get("stages", {})
        outs = [out for stage in stages.values() for out in stage.get("outs", ())]
        return next((str(out["md5"]) for out in outs if root / out["path"] == output), None)
    except (SeedError, AttributeError, KeyError, TypeError):
        return None


def _find_cache(root: Path, digest: str) -> Path | None:
    """Return the folder of DVC's cache that holds files by MD5, given the MD5 of one of them."""
    usual = root / ".dvc" / "cache" / "files" / "md5"
    if (usual / digest[:2] / digest[2:]).is_file():
        return usual  # asking DVC takes a second
    try:
        answer = subprocess.run(["dvc", "cache", "dir"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return root / answer.stdout.strip() / "files" / "md5"
