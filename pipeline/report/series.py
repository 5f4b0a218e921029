"""What the plots of an encoder are drawn from: the CSV files of `seed score`, and the curve of `seed train`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import TrialError
from pipeline.report.writers import BINS
from pipeline.scoring.distances import COLUMNS as DISTANCES
from pipeline.scoring.embedding_map import COLUMNS as MAP

Row = dict[str, str | float]
"""A line of a file, by column; a number that is not there has no entry."""


@dataclass(frozen=True)
class Series:
    """The rows of each file; none of one that is not there."""

    det: list[Row]
    histogram: list[Row]
    distances: list[Row]
    map: list[Row]
    training: list[Row]


def read_series(scores: Path, models: Path, encoder: str) -> Series:
    """Read the files of an encoder in `<scores>/<encoder>` and `<models>/<encoder>`.

    Raises:
        TrialError: a file is not what the command writes.
    """
    folder = scores / encoder
    return Series(
        det=_read(folder / "det.csv", ("condition", "system"), ("false_alarm", "miss")),
        histogram=_read(folder / "histogram.csv", ("condition", "system"), BINS),
        distances=_read(folder / "distances.csv", DISTANCES[:4], DISTANCES[4:]),
        map=_read(folder / "map.csv", MAP[:4], MAP[4:]),
        training=_read(models / encoder / "curve.csv", (), ("epoch", "train_loss", "validation_loss")),
    )


def _read(path: Path, names: Sequence[str], numbers: Sequence[str]) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file, strict=True))
        return [
            {name: line[name] for name in names} | {name: float(line[name]) for name in numbers if line[name] != ""}
            for line in lines
        ]
    except FileNotFoundError:
        return []
    except (csv.Error, KeyError, TypeError, ValueError) as error:  # TypeError: of a line that is too short
        raise TrialError(f"{path}: not a file of the report ({error!r}). Score, or train, again.") from error
