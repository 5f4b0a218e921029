"""Data for the plots of an encoder: the CSV files of `seed score`, and the loss curve of `seed train`."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import TrialError
from pipeline.report.results import CLEAN
from pipeline.report.writers import BINS
from pipeline.scoring.distances import COLUMNS as DISTANCES
from pipeline.scoring.embedding_map import COLUMNS as MAP

CsvRow = dict[str, str | float]
"""A row of a CSV file by column, without missing numbers."""

OPTIONAL = ("train_loss",)
"""The columns of numbers that may be empty: no epoch of training came before the first loss."""


@dataclass(frozen=True)
class Series:
    """The rows of each file; empty if the file does not exist."""

    det: list[CsvRow]
    histogram: list[CsvRow]
    distances: list[CsvRow]
    map: list[CsvRow]
    training: list[CsvRow]


def read_series(scores: Path, models: Path, encoder: str) -> Series:
    """Read the files of an encoder in `<scores>/<encoder>` and `<models>/<encoder>`.

    Raises:
        TrialError: a file is malformed.
    """
    folder = scores / encoder
    return Series(
        det=_read(folder / "det.csv", ("condition", "system"), ("false_alarm", "miss")),
        histogram=_read(folder / "histogram.csv", ("condition", "system"), BINS),
        distances=_read(folder / "distances.csv", DISTANCES[:4], DISTANCES[4:]),
        map=_check_map(folder / "map.csv", _read(folder / "map.csv", MAP[:4], MAP[4:])),
        training=_read(models / encoder / "curve.csv", (), ("epoch", "train_loss", "validation_loss")),
    )


def _check_map(path: Path, points: list[CsvRow]) -> list[CsvRow]:
    """Return the points of a map; raise TrialError if a noisy one has no clean one to start from."""
    clean = {(row["system"], row["utterance"]) for row in points if row["condition"] == CLEAN}
    for row in points:
        if (row["system"], row["utterance"]) not in clean:
            raise TrialError(
                f"{path}: {row['utterance']} of {row['system']} has no row of condition {CLEAN}. Score again."
            )
    return points


def _require(text: str | None) -> str:
    if text is None:
        raise ValueError("a short line")
    return text


def _parse(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} in place of a number")
    return number


def _read(path: Path, names: Sequence[str], numbers: Sequence[str]) -> list[CsvRow]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file, strict=True))
        return [
            {name: _require(line[name]) for name in names}
            | {name: _parse(line[name]) for name in numbers if line[name] != "" or name not in OPTIONAL}
            for line in lines
        ]
    except FileNotFoundError:
        return []
    except (csv.Error, KeyError, TypeError, ValueError) as error:  # a short line raises TypeError
        raise TrialError(f"{path}: not a file of the report ({error!r}). Score, or train, again.") from error
