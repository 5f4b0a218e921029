"""Manifests, which list the recordings of a set in row order, and lists of the sounds to mix into them."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.audio.augment.sources import KINDS, Source
from pipeline.errors import ManifestError
from pipeline.utils.atomic import replacing
from pipeline.utils.inputs import hash_input

AUGMENT_COLUMNS = ("kind", "path", "speaker", "index", "sha256")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a manifest.

    `path` is below the audio root. `start` and `end` (seconds) and `channel` (from 0) name a part of the file; without
    them, it is the whole file. `seconds` is the length of the utterance and `sha256` is that of the file, where known.
    The speaker's gender and age in years allow error rates by group. `corpus` is given where a list joins several
    corpora. `warning` is that of `pipeline.audio.reading.inspect_audio`. `labels` are the columns that have no meaning
    here, as pairs of name and text.
    """

    utterance: str
    path: str
    speaker: str | None = None
    seconds: float | None = None
    sha256: str | None = None
    gender: str | None = None
    age: float | None = None
    corpus: str | None = None
    warning: str | None = None
    start: float | None = None
    end: float | None = None
    channel: int | None = None
    labels: tuple[tuple[str, str], ...] = ()


COLUMNS = tuple(field.name for field in fields(Utterance) if field.name != "labels")
_OPTIONAL = ("gender", "age", "corpus", "warning", "start", "end", "channel")
"""Columns that are left out if no row has them."""


def escape_undecodable(name: str) -> str:
    """Return a file's name as text that UTF-8 can encode; other bytes become hexadecimal escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_manifest(path: Path) -> list[Utterance]:
    """Read a CSV manifest with a header of `utterance,path` and any of `speaker,seconds,sha256,gender,age,corpus,
    warning`.

    Raises:
        ManifestError: missing, empty, unknown or duplicate columns, a short row, or a duplicate utterance.
    """
    rows = _read_csv(path, required=COLUMNS[:2], known=COLUMNS)
    seen: dict[str, int] = {}
    manifest = []
    for line, row in rows:
        name = row["utterance"]
        if not name or not row["path"]:
            raise ManifestError(f"{path}:{line}: the row has no utterance or no path. Fill it in or remove the row.")
        if name in seen:
            raise ManifestError(
                f"{path}:{line}: utterance {name!r} is already on line {seen[name]}. Ids must be unique."
            )
        seen[name] = line
        manifest.append(
            Utterance(
                name,
                row["path"],
                speaker=row.get("speaker") or None,
                seconds=_number(row, "seconds", path, line),
                sha256=row.get("sha256") or None,
                gender=row.get("gender") or None,
                age=_number(row, "age", path, line),
                corpus=row.get("corpus") or None,
                warning=row.get("warning") or None,
                start=_number(row, "start", path, line),
                end=_number(row, "end", path, line),
                channel=_channel(row, path, line),
            )
        )
    if not manifest:
        raise ManifestError(f"{path}: lists no utterances. Check the file pattern of the manifest.")
    return manifest


def write_manifest(path: Path, manifest: Sequence[Utterance]) -> None:
    """Write a manifest as CSV atomically."""
    rows = (
        asdict(row)
        | {
            "seconds": None if row.seconds is None else f"{row.seconds:.3f}",
            "age": None if row.age is None else f"{row.age:g}",
        }
        for row in manifest
    )
    empty = {name for name in _OPTIONAL if all(getattr(row, name) is None for row in manifest)}
    _write_csv(path, [name for name in COLUMNS if name not in empty], rows)


def read_augment(path: Path, root: Path) -> dict[str, list[Source]]:
    """Read an augmentation list (`kind,path` and any of `speaker,index,sha256`): sources below `root`, by kind.

    Raises:
        ManifestError: a wrong column, or a kind that is not one of `KINDS`.
    """
    sources: dict[str, list[Source]] = {}
    for line, row in _read_csv(path, required=AUGMENT_COLUMNS[:2], known=AUGMENT_COLUMNS):
        if row["kind"] not in KINDS:
            raise ManifestError(f"{path}:{line}: unknown kind {row['kind']!r}. Use one of {', '.join(KINDS)}.")
        index = row.get("index") or None
        if index is not None and not index.isdecimal():
            raise ManifestError(f"{path}:{line}: index is {index!r}, not a number from 0.")
        number = None if index is None else int(index)
        source = Source(root / row["path"], row.get("speaker") or None, number, listed=row["path"])
        sources.setdefault(row["kind"], []).append(source)
    return sources


def write_augment(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write an augmentation list as CSV atomically."""
    _write_csv(path, AUGMENT_COLUMNS, rows)


def hash_list(path: Path | None) -> str | None:
    """Return the SHA-256 of a list's bytes, which covers the files through the checksums in the list.

    Raises:
        ManifestError: the list has changed since the command took it, see `pipeline.utils.inputs`.
    """
    if path is None:
        return None
    if (digest := hash_input(path)) is None:
        raise ManifestError(f"{path}: has changed while it was read. Run the command again.")
    return digest


def read_columns(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file that has all of `columns` and no others, as text.

    Raises:
        ManifestError: the file is missing, or has other columns.
    """
    return [row for _, row in _read_csv(path, columns, columns)]


def _number(row: Mapping[str, str], column: str, path: Path, line: int) -> float | None:
    text = row.get(column)
    try:
        return float(text) if text else None
    except ValueError:
        raise ManifestError(f"{path}:{line}: {column} is {text!r}, not a number.") from None


def _channel(row: Mapping[str, str], path: Path, line: int) -> int | None:
    text = row.get("channel") or None
    if text is not None and not text.isdecimal():
        raise ManifestError(f"{path}:{line}: channel is {text!r}, not a number from 0.")
    return None if text is None else int(text)


def _read_csv(path: Path, required: Sequence[str], known: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        # Spreadsheets write a byte order mark, and file systems allow paths that are not UTF-8.
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            _check_header(path, header, required, known)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ManifestError(
                        f"{path}:{reader.line_num}: {len(cells)} fields where the header has {len(header)}."
                    )
                row = dict(zip(header, cells, strict=True))
                invalid = [name for name, cell in row.items() if name != "path" and cell != escape_undecodable(cell)]
                if invalid:
                    raise ManifestError(
                        f"{path}:{reader.line_num}: not CSV text in UTF-8 (see {invalid[0]}). Save it as UTF-8."
                    )
                yield reader.line_num, row
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest. Make it with `seed manifest`.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not CSV text in UTF-8 ({error}).") from error


def _check_header(path: Path, header: Sequence[str], required: Sequence[str], known: Sequence[str]) -> None:
    if header and header[0][:2] in ("\udcff\udcfe", "\udcfe\udcff"):  # byte order marks, read as if they were UTF-8
        raise ManifestError(f"{path}: is text in UTF-16. Save it as UTF-8.")
    duplicate = sorted({name for name in header if header.count(name) > 1})
    unknown = [name for name in header if name not in known]
    missing = [name for name in required if name not in header]
    for fault, names in (("duplicate", duplicate), ("unknown", unknown), ("missing", missing)):
        if names:
            raise ManifestError(
                f"{path}:1: {fault} column {', '.join(map(repr, names))}. Columns are {', '.join(known)}."
            )


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
