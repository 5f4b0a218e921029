"""How far an extraction or a training is: a bar on a terminal, now and then a line of JSON elsewhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.extraction.extract import Progress
    from pipeline.training.progress import Epoch, Pace

EVERY = 30.0
"""Seconds between two lines of JSON."""


def measured(now: "Progress", seconds: float) -> dict[str, Any]:
    """Return the figures of an extraction that has run for some seconds."""
    new = now.done - now.resumed
    rate = new / seconds if seconds > 0 else 0.0
    left = now.rows - now.done
    return {
        "rows": now.rows,
        "done": now.done,
        "resumed": now.resumed,
        "reused": now.reused,
        "failed": now.failed,
        "rows_per_second": round(rate, 2),
        "audio_hours_per_second": round(now.seconds / 3600 / seconds, 4) if seconds > 0 else 0.0,
        "seconds_left": round(left / rate) if rate else None,
    }


@contextmanager
def extraction_progress(label: str) -> Iterator[Callable[["Progress"], None]]:
    """Show the progress of an extraction on stderr; yields a function to tell of it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = told = perf_counter()
    with Bar(*columns, TextColumn("{task.fields[rates]}"), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, rates="")

        def tell(now: "Progress") -> None:
            nonlocal told
            figures = measured(now, perf_counter() - started)
            bar.update(task, total=now.rows, completed=now.done, rates=_words(figures))
            if not console.is_terminal and perf_counter() - told >= EVERY:
                told = perf_counter()
                click.echo(json.dumps({"stage": label, **figures}), err=True)

        yield tell


@contextmanager
def training_progress(epochs: int) -> Iterator[tuple[Callable[["Epoch"], None], Callable[["Pace"], None]]]:
    """Show the progress of a training on stderr; yields functions to tell of every epoch, and of the steps in it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    told, best, losses = perf_counter(), None, ""
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=epochs)

        def tell(now: "Epoch") -> None:
            nonlocal told, best, losses
            best = now if best is None or now.validation_loss < best.validation_loss else best
            losses = losses_of(now, best)
            bar.update(task, completed=now.epoch, description=f"training: {losses}")
            if not console.is_terminal and perf_counter() - told >= EVERY:
                told = perf_counter()
                values = {name: round(value, 6) for name, value in now.values().items()}
                figures = {"epoch": now.epoch, "epochs": epochs, **values, "best_epoch": best.epoch}
                click.echo(json.dumps({"stage": "train", **figures}), err=True)

        def pace(now: "Pace") -> None:
            what = now.what + (f"epoch {now.epoch}" if now.epoch else "first pass")
            rate = f"{what}: {now.done / now.pairs:.0%}, {now.rate:,.0f} pairs/s"
            bar.update(task, description=f"{losses}; {rate}" if losses else f"training, {rate}")

        yield tell, pace


def losses_of(now: "Epoch", best: "Epoch") -> str:
    """Return the losses of an epoch, and those of the best one so far, in words."""
    train = f"train {now.train_loss:.4f}, " if "train_loss" in now.values() else ""
    better = "best so far" if best == now else f"best {best.validation_loss:.4f} in epoch {best.epoch}"
    return f"epoch {now.epoch}: {train}validation {now.validation_loss:.4f} ({better})"


def _words(figures: dict[str, Any]) -> str:
    left = figures["seconds_left"]
    parts = [
        f"{figures['rows_per_second']:,.1f} rows/s",
        f"{figures['audio_hours_per_second']:.3f} h of audio/s",
        f"{left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f} left" if left is not None else "",
        f"{figures['failed']:,} failed" if figures["failed"] else "",
    ]
    return ", ".join(part for part in parts if part)
