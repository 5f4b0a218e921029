"""`seed export`."""

from pathlib import Path

import click

from pipeline.store.formats.registry import format_names
from pipeline.utils.paths import Place
from stages.helpers.options import NEW, STORE, progress_bar


@click.command()
@click.argument("store", type=STORE)
@click.option("--out", type=NEW, required=True, help="File to write.")
@click.option(
    "--format", "form", type=click.Choice(format_names()), help="Format of the file.  [default: by its suffix]"
)
@click.option("--view", default="0", help="Name or number of the view; the clean one is 0.")
@click.option("--draw", type=click.IntRange(min=0), help="Number of the draw, or crop.  [default: all, one by one]")
def export(store: Place, out: Path, form: str | None, view: str, draw: int | None) -> None:
    """Write the vectors of one view of a store to a file for other tools.

    Failed utterances are left out and counted. Vectors are float32, as in the store.
    """
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.store.formats.export_store import export_store

    opened = EmbeddingStore.open(store)
    with progress_bar("exporting", len(opened.utterances)) as advance:
        done = export_store(opened, out, form, view, draw, advance)
    if done.failed:
        click.echo(f"  {done.failed:,} utterances failed and are left out", err=True)
    click.echo(f"{out}: {done.vectors:,} vectors of {opened.dim} numbers")
