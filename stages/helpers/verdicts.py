"""Print verdicts on models."""

from typing import TYPE_CHECKING

import click

from stages.helpers.options import make_console

if TYPE_CHECKING:
    from pipeline.training.verdict import Verdict


def print_rates(verdict: "Verdict", count: int) -> None:
    """Print the error rates of a verdict on a number of recordings."""
    from rich.table import Table

    title = f"{count} recordings, EER in % [95 % interval]"
    table = Table("vectors", "clean", "noisy", title=title, title_justify="left")
    for name, rates in verdict.rates.items():
        table.add_row(name, *("{:.1f} [{:.1f}, {:.1f}]".format(*each) for each in (rates.clean, rates.noisy)))
    make_console().print(table)


def print_reason(verdict: "Verdict") -> None:
    """Print the reason for a verdict."""
    click.echo(
        f"Why: {verdict.reason}. Atypicality {verdict.atypicality:.1f} (1 is usual), strength as is"
        f" {verdict.strength:.2f}, adapted {verdict.adapted_strength:.2f}."
    )
