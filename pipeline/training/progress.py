"""Progress within an epoch, and the training curve with one row per epoch."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from time import perf_counter
from typing import TypeVar

from pipeline.utils.atomic import replacing
from pipeline.utils.paths import Place

_Batch = TypeVar("_Batch")


@dataclass(frozen=True)
class PassProgress:
    """Progress of one pass over the pairs."""

    epoch: int
    """The epoch; 0 is the pass that fits the preconditioner of a streamed store."""
    done: int
    pairs: int
    rate: float
    """Pairs per second since the pass began."""
    label: str = ""
    """The name of the training, where there are several; empty for the model's own."""


OnBatch = Callable[[PassProgress], None]


def report_progress(
    batches: Iterable[_Batch], size: Callable[[_Batch], int], pairs: int, epoch: int, on_batch: OnBatch | None
) -> Iterator[_Batch]:
    """Yield the batches of a pass, and call `on_batch` after each."""
    started, done = perf_counter(), 0
    for batch in batches:
        yield batch
        done += size(batch)
        if on_batch:
            on_batch(PassProgress(epoch, done, pairs, done / (perf_counter() - started)))


@dataclass(frozen=True)
class Epoch:
    """One row of the training curve; epoch 0 is the network before its first step."""

    epoch: int
    train_loss: float
    validation_loss: float
    """Mean L1 to the clean embedding after one noise-free enhancement step, clean inputs included, plus
    `train.contrast` times the contrast."""
    gradient_norm: float = math.nan
    """Mean norm of the gradient over the epoch's steps, before `train.clip`."""
    learning_rate: float = math.nan
    """The learning rate of the epoch's last step."""
    gradient_peak: float = math.nan
    """The largest norm of the gradient in the epoch."""

    def values(self) -> dict[str, float]:
        """Return the measured values by name; epoch 0 has only a validation loss."""
        measured = {name: value for name, value in asdict(self).items() if name != "epoch"}
        return {name: value for name, value in measured.items() if not math.isnan(value)}


def write_training_curve(path: Place, epochs: Sequence[Epoch]) -> None:
    """Write the epochs as CSV, atomically; missing values are empty."""
    names = [field.name for field in fields(Epoch)][1:]
    hidden = path.with_name(f".{path.name}.partial")  # one name, because killed runs leave the file behind
    with replacing(path, hidden) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("epoch", *names))
        for epoch in epochs:
            measured = {name: f"{value:z.6f}" for name, value in epoch.values().items()}
            if "learning_rate" in measured:
                measured["learning_rate"] = f"{epoch.learning_rate:.6g}"
            writer.writerow((epoch.epoch, *(measured.get(name, "") for name in names)))
