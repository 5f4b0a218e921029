"""The curve of a training: a row an epoch."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from time import perf_counter
from typing import TypeVar

from pipeline.utils.atomic import replacing
from pipeline.utils.paths import Place

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Pace:
    """How far a pass over the pairs is."""

    epoch: int
    """0 is the pass that fits the preconditioner of a streamed store."""
    done: int
    pairs: int
    rate: float
    """Pairs per second since the pass began."""
    what: str = ""
    """Of several trainings, which it is."""


Watch = Callable[[Pace], None]


def watched(
    parts: Iterable[_Part], size: Callable[[_Part], int], pairs: int, epoch: int, watch: Watch | None
) -> Iterator[_Part]:
    """Yield the parts of a pass, and tell after each how far it is."""
    started, done = perf_counter(), 0
    for part in parts:
        yield part
        done += size(part)
        if watch:
            watch(Pace(epoch, done, pairs, done / (perf_counter() - started)))


@dataclass(frozen=True)
class Epoch:
    """One row of the training curve; epoch 0 is the network before its first step."""

    epoch: int
    train_loss: float
    validation_loss: float
    """Mean L1 to the clean embedding after the one noise-free step that enhancement takes, clean input included, plus
    `train.contrast` times the contrast."""
    gradient_norm: float = math.nan
    """Mean of the gradient's length over the epoch's steps, before `train.clip`."""
    learning_rate: float = math.nan
    """Of the epoch's last step."""
    gradient_peak: float = math.nan
    """The greatest length of the gradient in the epoch."""

    def values(self) -> dict[str, float]:
        """Return what was measured, by name; an epoch 0 has no more than a validation loss."""
        measured = {name: value for name, value in asdict(self).items() if name != "epoch"}
        return {name: value for name, value in measured.items() if not math.isnan(value)}


def write_training_curve(path: Place, epochs: Sequence[Epoch]) -> None:
    """Write the epochs so far as CSV, whole or not at all; what was not measured is empty."""
    names = [field.name for field in fields(Epoch)][1:]
    hidden = path.with_name(f".{path.name}.partial")  # always the same, for it is written often, and kills leave it
    with replacing(path, hidden) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("epoch", *names))
        for epoch in epochs:
            measured = {name: f"{value:.6f}" for name, value in epoch.values().items()}
            if "learning_rate" in measured:
                measured["learning_rate"] = f"{epoch.learning_rate:.6g}"
            writer.writerow((epoch.epoch, *(measured.get(name, "") for name in names)))
