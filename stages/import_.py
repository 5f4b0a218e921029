"""`seed import`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FILE, OUTPUT, progress_bar

if TYPE_CHECKING:
    from pipeline.utils.paths import Place

KINDS = ("unmatched", "duplicates", "nan", "dimensions")
FORMATS = ("npy", "npz", "hdf5", "hyperion", "ark", "scp", "parquet", "csv", "pt", "pt-dict")


def _kinds(context: click.Context, option: click.Parameter, text: str) -> frozenset[str]:
    kinds = frozenset(filter(None, text.split(",")))
    if unknown := kinds - set(KINDS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are {', '.join(KINDS)}.")
    return kinds


def _views(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    files: dict[str, str] = {}
    for text in given:
        name, _, file = text.partition("=")
        if not name or not file or name in files or name == "clean" or name.isdecimal():
            raise click.BadParameter(f"{text}: must be NAME=FILE, each name once, and none 'clean' or a number")
        files[name] = file
    return files


@click.command("import")
@click.option(
    "--clean",
    metavar="FILE",
    required=True,
    help="Clean vectors, or those of evaluation data; a file, or a quoted pattern such as 'xvector.*.ark'.",
)
@click.option(
    "--noisy",
    metavar="NAME=FILE",
    multiple=True,
    callback=_views,
    help="Noisy vectors of the same utterances, a view of that name; repeatable.",
)
@click.option("--encoder", required=True, help="Name of what made the vectors; stores of one name can be compared.")
@click.option("--out", type=OUTPUT, required=True, help="Store to write, a folder named ….zarr, or s3://….zarr.")
@click.option("--ids", type=FILE, help="Ids of files that hold none, one a line.  [default: <file>.ids or <file>.txt]")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of all files.  [default: by their suffixes]")
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Vectors of each id, such as the crops of an utterance.",
)
@click.option(
    "--skip",
    default="",
    metavar="KINDS",
    callback=_kinds,
    help=f"Rows to leave out and count rather than stop, as a list with commas: {', '.join(KINDS)}.",
)
@click.option("--weights-sha256", help="Of the encoder's weights: stores of other weights cannot be compared.")
def import_(
    clean: str,
    noisy: dict[str, str],
    encoder: str,
    out: "Place",
    ids: Path | None,
    form: str | None,
    draws: int,
    skip: frozenset[str],
    weights_sha256: str | None,
) -> None:
    """Make a store of embeddings from elsewhere, of NumPy, HDF5, Kaldi, Parquet, CSV or PyTorch files.

    Files are matched by id; the store has the order of the clean one. Ids that are not in every file, repeated ids, NaN
    and vectors of another length stop the import, unless --skip names them.
    """
    from pipeline.store.formats.import_store import import_store
    from pipeline.store.formats.registry import open_sources

    first = open_sources(clean, form, ids)
    others = {name: open_sources(file, form, ids) for name, file in noisy.items()}
    with progress_bar("importing", None) as advance:
        done = import_store(first, others, out, encoder, draws, skip, weights_sha256, advance)
    for finding in done.findings.found:
        become = "marked as failed" if finding.kind in ("nan", "dimensions") else "left out"
        click.echo(f"  {finding.text}: {become}", err=True)
    for path in done.rounded:
        click.echo(f"  {path}: float64 was rounded to float32", err=True)
    click.echo(
        f"{out}: {done.utterances:,} utterances, {draws} draws, {1 + len(others)} views of {first.dim} numbers;"
        f" {done.failed:,} failed"
    )
