"""`seed fetch`."""

from pathlib import Path

import click

from stages.helpers.options import NEW, corpora_option, load_params, params_option, root_option


@click.command()
@click.option("--corpus", help="Name of a corpus.  [default: all of corpus of the parameter file]")
@corpora_option
@root_option
@click.option("--out", type=NEW, help="Folder to write to.  [default: data/audio/<corpus>]")
@params_option
def fetch(corpus: str | None, corpora: Path, data_root: str | None, out: Path | None, params: Path | None) -> None:
    """Fetch corpora: synthesise the demo, download an archive, or link to recordings on this machine.

    An interrupted download resumes. The sha256 of an archive is checked before it is unpacked.
    """
    from rich.console import Console

    from pipeline.data.corpora import find_data_root, read_corpora, read_corpus
    from pipeline.data.fetch import fetch_corpus as run
    from pipeline.data.published_lists import find_list_path

    settings = load_params(params, {"corpus": corpus, "data_root": data_root})
    if out and len(settings.corpus) > 1:
        raise click.UsageError("--out is the folder of one corpus; give --corpus too")
    console = Console(stderr=True)
    with console.status("fetching") as status:

        def show(what: str, done: int, total: int | None) -> None:
            status.update(f"{what} {done:,} of {total:,}" if total else f"{what} {done or ''}")

        for name in settings.corpus:
            definition = read_corpus(corpora, name)
            known = read_corpora(corpora) if definition.trials else {}
            lists = {each: find_list_path(known, each, settings.data_root) for each in definition.trials}
            target = out or Path("data/audio") / name
            run(name, definition, find_data_root(definition, settings.data_root), target, show, lists)
            click.echo(f"{name}: {definition.title}\n  in {target}; licence: {definition.licence}")
