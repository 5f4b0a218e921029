"""`seed clean`."""

from pathlib import Path

import click

from stages.helpers.options import FOLDER


@click.command()
@click.argument("folder", type=FOLDER, default="data")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--dry-run", is_flag=True, help="List what would be removed, and remove nothing.")
def clean(folder: Path, yes: bool, dry_run: bool) -> None:
    """Remove what interrupted extractions and trainings left below FOLDER (default: data), after listing it.

    An interrupted extraction keeps its work in a journal, a hidden folder beside the store. The same command resumes
    from it, and the same command with another manifest reuses the rows in common. The journal is useless once you
    have changed the recipe, encoder or seed for good. A training keeps its checkpoint beside the model in the same
    way, for `seed train --resume`.
    """
    from rich.filesize import decimal

    from pipeline.store.leftovers import find_leftovers, remove_leftover

    found, busy = find_leftovers(folder, _describe_training)
    for journal in busy:
        click.echo(f"{journal}: in use, left alone")
    for leftover in found:
        click.echo(f"{leftover.folder}: {leftover.what}; {decimal(leftover.size)}")
    if not found:
        click.echo(f"{folder}: nothing to remove")
    elif not dry_run and (yes or click.confirm(f"Remove {'it' if len(found) == 1 else f'these {len(found)}'}?")):
        for leftover in found:
            remove_leftover(leftover)
        click.echo(f"{decimal(sum(leftover.size for leftover in found))} freed")


def _describe_training(folder: Path) -> str | None:
    """Describe the training saved in a folder. Torch is imported only if there is one."""
    from pipeline.training.checkpoints import describe_checkpoint

    return describe_checkpoint(folder)
