"""`seed fetch`."""

from pathlib import Path

import click

from stages.helpers.options import NEW, corpora_option, load_params, params_option, root_option


@click.command()
@click.option("--corpus", help="Name of a corpus.  [default: corpus of the parameter file]")
@corpora_option
@root_option
@click.option("--out", type=NEW, help="Folder to write to.  [default: data/audio/<corpus>]")
@params_option
def fetch(corpus: str | None, corpora: Path, data_root: str | None, out: Path | None, params: Path | None) -> None:
    """Fetch a corpus: synthesise the demo, download an archive, or link to recordings on this machine.

    An interrupted download resumes. The sha256 of an archive is checked before it is unpacked.
    """
    from rich.console import Console

    from pipeline.data.corpora import find_data_root, read_corpora, read_corpus
    from pipeline.data.fetch import fetch_corpus as run
    from pipeline.data.published_lists import find_list_path

    settings = load_params(params, {"corpus": corpus, "data_root": data_root})
    definition = read_corpus(corpora, settings.corpus)
    known = read_corpora(corpora) if definition.trials else {}
    lists = {name: find_list_path(known, name, settings.data_root) for name in definition.trials}
    target = out or Path("data/audio") / settings.corpus
    console = Console(stderr=True)
    with console.status("fetching") as status:

        def show(what: str, done: int, total: int | None) -> None:
            status.update(f"{what} {done:,} of {total:,}" if total else f"{what} {done or ''}")

        run(settings.corpus, definition, find_data_root(definition, settings.data_root), target, show, lists)
    click.echo(f"{settings.corpus}: {definition.title}\n  in {target}; licence: {definition.licence}")
