"""Put a corpus into `data/audio/<name>`: generate it, download it, or link to existing folders."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.data.corpora import LISTS, ROLES, SIMULATED, Corpus, Synthesis, as_list
from pipeline.data.demo.corpus import make_demo
from pipeline.data.demo.rooms import write_rooms
from pipeline.errors import CorpusError, FetchError
from pipeline.utils.archives import unpack
from pipeline.utils.atomic import lock_folder, replacing_folder, write_text
from pipeline.utils.download import download

RECEIPT = "corpus.json"
_MARK = ".seed-fetch"  # marks a folder as ours, so that its contents may be replaced

FetchProgress = Callable[[str, int, int | None], None]
"""Callback that gets the name of a step, the amount done, and the total if it is known."""


def fetch_corpus(
    name: str,
    corpus: Corpus,
    root: Path,
    out: Path,
    progress: FetchProgress | None = None,
    lists: Mapping[str, Path] | None = None,
) -> Path:
    """Fill `out` with the corpus's folders (speech, noise, music, rooms, babble, simulated, trials) and a receipt.

    Recorded corpora are linked, not copied. A role that the corpus lacks becomes an empty folder, because DVC expects
    every folder to exist.

    `root` is the folder above the role folders (`corpora.find_data_root`), and `lists` are paths of trial lists by name
    (`published_lists.find_list_path`).

    Returns:
        The receipt, a JSON file with the corpus's title, licence and origin.

    Raises:
        CorpusError: the corpus is missing and has no url, or a role folder is missing.
        FetchError: the download failed, or differs from the definition.
        OutputError: another process is fetching to `out`.
    """
    report = progress or (lambda what, done, total: None)
    if corpus.train is None:
        raise CorpusError(f"corpus {name!r} is a part of others and has no train and test. Fetch one that has both.")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / _MARK).exists() and any(out.iterdir()):
        raise CorpusError(f"{out}: holds files that `seed fetch` did not make. Give another folder with --out.")
    (out / _MARK).mkdir(exist_ok=True)
    with lock_folder(out / _MARK):
        return _fill_folder(name, corpus, root, out, report, lists or {})


def _fill_folder(
    name: str, corpus: Corpus, root: Path, out: Path, report: FetchProgress, lists: Mapping[str, Path]
) -> Path:
    receipt = out / RECEIPT
    receipt.unlink(missing_ok=True)  # a receipt promises that the rest is complete
    if corpus.origin.synthesis:
        _synthesise(corpus.origin.synthesis, out, lambda done, total: report("synthesising", done, total))
    else:
        for folder in as_list(corpus.folders["speech"]):
            if not (root / folder).is_dir():
                _download(name, corpus, root, folder, report)
        for role, folders in corpus.folders.items():
            _link_role(role, folders, root, out / role)
    for role in (*ROLES, SIMULATED):
        (out / role).mkdir(exist_ok=True)
    _remove(out / LISTS)
    (out / LISTS).mkdir()
    for list_name, path in lists.items():
        (out / LISTS / list_name).symlink_to(path.resolve())
    if any(split and split.rooms == SIMULATED for split in (corpus.train, corpus.test)):
        report("simulating rooms", 0, None)
        if len(list((out / SIMULATED).glob("*.wav"))) != corpus.simulated_rooms:
            with replacing_folder(out / SIMULATED) as new:
                write_rooms(new, corpus.simulated_rooms, seed=0)
    content = {"corpus": name, "title": corpus.title, "licence": corpus.licence, "origin": corpus.origin.page}
    write_text(receipt, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return receipt


def _synthesise(size: Synthesis, out: Path, progress: Callable[[int, int], None]) -> None:
    new = out / ".new"
    _remove(new)
    new.mkdir()
    make_demo(new, progress, **size.model_dump())
    for child in sorted(new.iterdir()):
        _remove(out / child.name)
        child.replace(out / child.name)
    new.rmdir()


def _download(name: str, corpus: Corpus, root: Path, folder: str, report: FetchProgress) -> None:
    origin, speech = corpus.origin, root / folder
    if origin.url is None:
        page = f" Get it from {origin.page}." if origin.page else ""
        raise CorpusError(
            f"corpus {name!r} is missing: no folder {speech}. Point SEED_DATA or data_root to the folder that holds"
            f" {folder!r}, or give the corpus an origin url in data/corpora.yaml.{page}"
        )
    if origin.sha256 is None:
        raise FetchError(f"corpus {name!r}: origin.url needs origin.sha256 beside it in data/corpora.yaml.")
    archive = root / "downloads" / origin.url.rsplit("/", 1)[-1]
    download(origin.url, archive, origin.sha256, lambda done, total: report("downloading", done, total))
    report("unpacking", 0, None)
    unpack(archive, speech)


def _link_role(role: str, folders: str | list[str], root: Path, out: Path) -> None:
    if isinstance(folders, str):
        _link(role, (root / folders).resolve(), out)
        return
    if out.is_symlink():
        out.unlink()
    out.mkdir(exist_ok=True)
    links = {Path(folder).name: (root / folder).resolve() for folder in folders}
    for old in set(out.iterdir()) - {out / name for name in links}:
        _remove(old)
    for name, source in links.items():
        _link(role, source, out / name)


def _link(role: str, source: Path, link: Path) -> None:
    if not source.is_dir():
        raise CorpusError(
            f"no folder {source} for the corpus's {role}. Point SEED_DATA or data_root to the folder that holds it, or"
            " correct folders in data/corpora.yaml."
        )
    if link.is_symlink() and link.resolve() == source:
        return
    _remove(link)
    link.symlink_to(source, target_is_directory=True)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
