"""`seed import`."""

from pathlib import Path

import click

from pipeline.store.formats.problems import KINDS, OF_VECTORS
from pipeline.store.formats.registry import format_names, open_sources
from pipeline.utils.paths import Place
from stages.helpers.options import FILE, OUTPUT, progress_bar


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
    help="File of clean vectors or of evaluation data, or a quoted pattern such as 'xvector.*.ark'.",
)
@click.option(
    "--noisy",
    metavar="NAME=FILE",
    multiple=True,
    callback=_views,
    help="File of noisy vectors of the same utterances, which become a view of that name; repeatable.",
)
@click.option(
    "--encoder",
    required=True,
    help="Name of the encoder that made the vectors; only stores of the same name can be compared.",
)
@click.option("--out", type=OUTPUT, required=True, help="Store to write: a folder named ….zarr, or s3://….zarr.")
@click.option(
    "--ids",
    type=FILE,
    help="Text file with one id per line, for files that hold none.  [default: <file>.ids or <file>.txt]",
)
@click.option(
    "--format", "form", type=click.Choice(format_names()), help="Format of all files.  [default: by their suffixes]"
)
@click.option(
    "--draws",
    type=click.IntRange(1, 10_000),
    default=1,
    help="Number of vectors per id, such as the crops of an utterance.",
)
@click.option(
    "--skip",
    default="",
    show_default=False,
    metavar="KINDS",
    callback=_kinds,
    help=f"Problems that do not stop the import, as a comma-separated list: {', '.join(KINDS)}. Their rows are"
    " left out or marked as failed, and counted.",
)
@click.option("--weights-sha256", help="SHA-256 of the encoder's weights; stores of other weights cannot be compared.")
def import_(
    clean: str,
    noisy: dict[str, str],
    encoder: str,
    out: Place,
    ids: Path | None,
    form: str | None,
    draws: int,
    skip: frozenset[str],
    weights_sha256: str | None,
) -> None:
    """Make a store from files of embeddings that other tools wrote.

    Files are matched by id; the store keeps the order of the clean one. Ids that are not in every file, repeated ids,
    NaN, vectors of zeros and vectors of another length stop the import, unless --skip names them.
    """
    from pipeline.store.formats.import_store import import_store

    first = open_sources(clean, form, ids)
    others = {name: open_sources(file, form, ids) for name, file in noisy.items()}
    with progress_bar("importing", None) as advance:
        done = import_store(first, others, out, encoder, draws, skip, weights_sha256, advance)
    for problem in done.problems.problems:
        become = "marked as failed" if problem.kind in OF_VECTORS else "left out"
        click.echo(f"  {problem.text}: {become}", err=True)
    for path in done.rounded:
        click.echo(f"  {path}: float64 was rounded to float32", err=True)
    click.echo(
        f"{out}: {done.utterances:,} utterances, {draws} draws, {1 + len(others)} views of {first.dim} numbers;"
        f" {done.failed:,} failed"
    )
