"""`seed clean`."""

from pathlib import Path

import click

from stages.helpers.options import FOLDER


@click.command()
@click.argument("folder", type=FOLDER, default="data")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--dry-run", is_flag=True, help="List only.")
def clean(folder: Path, yes: bool, dry_run: bool) -> None:
    """List what stopped extractions and trainings have left below FOLDER (default: data), and remove it.

    An unfinished extraction waits in a journal, a hidden folder beside its store: the same command goes on from it, and
    one with another manifest takes the rows that they have in common. It is stale, and of no further use, once recipe,
    encoder or seed have changed for good. A training waits beside its model in the same way, for `seed train --resume`.
    """
    from rich.filesize import decimal

    from pipeline.store.leftovers import leftovers, remove

    found, busy = leftovers(folder, _describe_training)
    for journal in busy:
        click.echo(f"{journal}: in use, left alone")
    for leftover in found:
        click.echo(f"{leftover.folder}: {leftover.what}; {decimal(leftover.size)}")
    if not found:
        click.echo(f"{folder}: nothing to remove")
    elif not dry_run and (yes or click.confirm(f"Remove {'it' if len(found) == 1 else f'these {len(found)}'}?")):
        for leftover in found:
            remove(leftover)
        click.echo(f"{decimal(sum(leftover.size for leftover in found))} freed")


def _describe_training(folder: Path) -> str | None:
    """Return what a folder with a saved training holds; torch is imported only where there is one."""
    from pipeline.training.checkpoints import describe_checkpoint

    return describe_checkpoint(folder)
