"""`seed export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import NEW, STORE, progress_bar

if TYPE_CHECKING:
    from pipeline.utils.paths import Place

FORMATS = ("npy", "npz", "hdf5", "hyperion", "ark", "scp", "parquet", "csv", "pt", "pt-dict")


@click.command()
@click.argument("store", type=STORE)
@click.option("--out", type=NEW, required=True, help="File to write.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Its format.  [default: by the suffix]")
@click.option("--view", default="0", show_default=True, help="Name or number of the view; the clean one is 0.")
@click.option("--draw", type=click.IntRange(min=0), help="Number of the draw, or crop.  [default: all, one by one]")
def export(store: "Place", out: Path, form: str | None, view: str, draw: int | None) -> None:
    """Write a view of a store's vectors to a NumPy, HDF5, Kaldi, Parquet, CSV or PyTorch file.

    Utterances that failed are left out, and counted. Vectors are float32, as they are in the store.
    """
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.store.formats.export_store import export_store
    from pipeline.store.formats.registry import format_of

    opened = EmbeddingStore.open(store)
    with progress_bar("exporting", len(opened.utterances)) as advance:
        done = export_store(opened, out, form or format_of(out), view, draw, advance)
    if done.failed:
        click.echo(f"  {done.failed:,} utterances failed and are left out", err=True)
    click.echo(f"{out}: {done.vectors:,} vectors of {opened.dim} numbers")
