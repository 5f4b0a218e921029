"""Join the lists of several corpora. All are for training; the first one is also tested on."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.manifest import (
    AUGMENT_COLUMNS,
    Utterance,
    read_columns,
    read_manifest,
    write_augment,
    write_manifest,
)
from pipeline.errors import ManifestError

SUFFIXES = (".csv", ".augment.csv")
"""Endings of the two lists of a set."""


def join_lists(folders: Mapping[str, Path], train: str, tests: Sequence[str], out: Path) -> dict[str, int]:
    """Write the lists of several corpora as one corpus, and return the number of utterances of each set.

    The training set has the utterances of all corpora, with the corpus of each in the column `corpus`. Ids and speakers
    of all but the first corpus are named `<corpus>/<name>`. The sounds to mix in are those of all corpora; the same
    file is listed once. The test sets are those of the first corpus. The lists of a single corpus stay as they are.

    Args:
        folders: folder of the lists by corpus.
        train: name of the training set.
        tests: names of the test sets.
        out: folder to write to.

    Raises:
        ManifestError: a list is missing or malformed.
    """
    first, *others = folders
    out.mkdir(parents=True, exist_ok=True)
    for name in (train, *tests):
        for path in (folders[first] / f"{name}{suffix}" for suffix in SUFFIXES):
            if not path.is_file():
                raise ManifestError(f"{path}: no such list. Make it with `seed manifest --corpus {first}`.")
            shutil.copyfile(path, out / path.name)
    if others:
        write_manifest(out / f"{train}.csv", _join_utterances(folders, train))
        write_augment(out / f"{train}.augment.csv", _join_sounds(folders, train))
    return {name: len(read_manifest(out / f"{name}.csv")) for name in (train, *tests)}


def _join_utterances(folders: Mapping[str, Path], name: str) -> list[Utterance]:
    rows = list[Utterance]()
    for number, (corpus, folder) in enumerate(folders.items()):
        prefix = f"{corpus}/" if number else ""
        rows += (
            replace(
                row,
                utterance=f"{prefix}{row.utterance}",
                speaker=row.speaker and f"{prefix}{row.speaker}",
                corpus=corpus,
            )
            for row in read_manifest(folder / f"{name}.csv")
        )
    return rows


def _join_sounds(folders: Mapping[str, Path], name: str) -> list[dict[str, str]]:
    kept: dict[tuple[str, ...], dict[str, str]] = {}
    for number, (corpus, folder) in enumerate(folders.items()):
        prefix = f"{corpus}/" if number else ""
        for row in read_columns(folder / f"{name}.augment.csv", AUGMENT_COLUMNS):
            talker = {"speaker": row["speaker"] and f"{prefix}{row['speaker']}"}
            kept.setdefault((row["kind"], row["sha256"] or row["path"], row["index"]), row | talker)
    return list(kept.values())
