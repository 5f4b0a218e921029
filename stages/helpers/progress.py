"""Progress of an extraction or a training: a bar on a terminal, otherwise a line of JSON every 30 seconds."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from stages.helpers.options import make_bar

if TYPE_CHECKING:
    from pipeline.extraction.extract import ExtractionProgress
    from pipeline.training.progress import Epoch, PassProgress

INTERVAL = 30.0
"""Seconds between two lines of JSON."""


def extraction_figures(state: "ExtractionProgress", seconds: float) -> dict[str, Any]:
    """Return the counts and rates of an extraction that has run for some seconds."""
    rate = (state.done - state.resumed) / seconds if seconds > 0 else 0.0
    return {
        "rows": state.rows,
        "done": state.done,
        "resumed": state.resumed,
        "reused": state.reused,
        "failed": state.failed,
        "rows_per_second": round(rate, 2),
        "audio_hours_per_second": round(state.seconds / 3600 / seconds, 4) if seconds > 0 else 0.0,
        "seconds_left": round((state.rows - state.done) / rate) if rate else None,
    }


@contextmanager
def extraction_progress(label: str) -> Iterator[Callable[["ExtractionProgress"], None]]:
    """Show the progress of an extraction on stderr. Yield a function that updates it."""
    from rich.progress import TextColumn

    started = last_line = perf_counter()
    with make_bar(TextColumn("{task.fields[rates]}")) as bar:
        task = bar.add_task(label, total=None, rates="")

        def update(state: "ExtractionProgress") -> None:
            nonlocal last_line
            figures = extraction_figures(state, perf_counter() - started)
            bar.update(task, total=state.rows, completed=state.done, rates=_format_rates(figures))
            if bar.disable and perf_counter() - last_line >= INTERVAL:
                last_line = perf_counter()
                click.echo(json.dumps({"stage": label, **figures}), err=True)

        yield update


@contextmanager
def training_progress(epochs: int) -> Iterator[tuple[Callable[["Epoch"], None], Callable[["PassProgress"], None]]]:
    """Show the progress of a training on stderr. Yield functions that update it after an epoch, and within one."""
    from rich.progress import TimeRemainingColumn

    last_line, best, losses = perf_counter(), None, ""
    with make_bar(TimeRemainingColumn()) as bar:
        task = bar.add_task("training", total=epochs)

        def end_epoch(epoch: "Epoch") -> None:
            nonlocal last_line, best, losses
            best = epoch if best is None or epoch.validation_loss < best.validation_loss else best
            losses = _format_losses(epoch, best)
            bar.update(task, completed=epoch.epoch, description=f"training: {losses}")
            if bar.disable and perf_counter() - last_line >= INTERVAL:
                last_line = perf_counter()
                values = {name: round(value, 6) for name, value in epoch.values().items()}
                figures = {"epoch": epoch.epoch, "epochs": epochs, **values, "best_epoch": best.epoch}
                click.echo(json.dumps({"stage": "train", **figures}), err=True)

        def update(progress: "PassProgress") -> None:
            phase = progress.label + (f"epoch {progress.epoch}" if progress.epoch else "first pass")
            rate = f"{phase}: {progress.done / progress.pairs:.0%}, {progress.rate:,.0f} pairs/s"
            bar.update(task, description=f"{losses}; {rate}" if losses else f"training, {rate}")

        yield end_epoch, update


def _format_losses(epoch: "Epoch", best: "Epoch") -> str:
    """Return the losses of an epoch and of the best one so far as text."""
    train = f"train {epoch.train_loss:z.4f}, " if "train_loss" in epoch.values() else ""
    comparison = "best so far" if best == epoch else f"best {best.validation_loss:z.4f} in epoch {best.epoch}"
    return f"epoch {epoch.epoch}: {train}validation {epoch.validation_loss:z.4f} ({comparison})"


def _format_rates(figures: dict[str, Any]) -> str:
    left = figures["seconds_left"]
    parts = [
        f"{figures['rows_per_second']:,.1f} rows/s",
        f"{figures['audio_hours_per_second']:.3f} h of audio/s",
        f"{left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f} left" if left is not None else "",
        f"{figures['failed']:,} failed" if figures["failed"] else "",
    ]
    return ", ".join(part for part in parts if part)
