"""`seed corpus`: list the corpora, or check the files of one."""

from pathlib import Path

import click

from stages.helpers.options import corpora_option, load_params, params_option, root_option


@click.group()
def corpus() -> None:
    """List the corpora, or check which files of one are present."""


@corpus.command("list")
@corpora_option
def list_corpora(corpora: Path) -> None:
    """List the defined corpora and their trial lists."""
    from pipeline.data.corpora import read_corpora

    for name, found in read_corpora(corpora).items():
        click.echo(f"{name}: {found.title}")
        if found.parts:
            click.echo(f"  of {', '.join(found.parts)}")
        for trials, published in found.lists.items():
            count = f"{published.trials:,} trials" if published.trials else "trials"
            click.echo(f"  {trials}: {count}, {published.path}")


@corpus.command()
@click.argument("name")
@click.option("--sample", type=click.IntRange(min=1), default=5, help="Number of files of each kind to read.")
@corpora_option
@root_option
@params_option
def check(name: str, sample: int, corpora: Path, data_root: str | None, params: Path | None) -> None:
    """Check which files of a corpus and of its parts are present.

    Compares the number of files and trials with the published numbers, and reads some files. The exit code is 1 if any
    are missing.
    """
    from pipeline.data.corpora import find_data_root, read_corpora
    from pipeline.data.inventory import take_inventory
    from pipeline.data.published_lists import resolve_parts
    from pipeline.errors import CorpusError

    settings = load_params(params, {"data_root": data_root})
    known = read_corpora(corpora)
    parts = resolve_parts(known, name)
    missing: dict[str, int] = {}
    click.echo(f"{name}, below {find_data_root(known[name], settings.data_root)}")
    for found in take_inventory(known, name, settings.data_root, sample):
        expected = f" of {found.expected:,}" if found.expected is not None else ""
        says = found.problem or found.remark or "ok"
        click.echo(f"  {found.corpus:16} {found.name:44} {found.count:>9,}{expected:13} {says}")
        if found.problem:
            missing[found.corpus] = missing.get(found.corpus, 0) + 1
    for part in missing:
        origin = parts[part].origin
        click.echo(f"{part}: {parts[part].title}; licence: {parts[part].licence}")
        click.echo(f"  from {origin.page or 'your own source'}{': ' + origin.terms if origin.terms else ''}")
    if parts[name].origin.synthesis:
        click.echo(f"  nothing to download: `seed fetch --corpus {name}` synthesises it")
    if missing:
        raise CorpusError(
            f"corpus {name}: {sum(missing.values())} of the above are missing or damaged. Download them, or set"
            " SEED_DATA or data_root to the folder that holds them."
        )
