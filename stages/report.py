"""`seed report`."""

from pathlib import Path

import click

from stages.common import FOLDER, NEW, load_params, params_option


@click.command()
@click.option(
    "--results", type=FOLDER, default="results/scores", show_default=True, help="Folder with <encoder>/metrics.json."
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Encoders to report, repeatable.  [default: those of the parameter file]",
)
@click.option(
    "--quality",
    type=NEW,
    default="results/quality",
    show_default=True,
    help="Folder with <encoder>/quality.json of training stores, where they were checked.",
)
@click.option("--corpora", type=NEW, default="data/corpora.yaml", show_default=True, help="Corpus definitions.")
@click.option("--out", type=NEW, default="results", show_default=True, help="Folder for metrics.json and report.md.")
@click.option(
    "--table/--no-table", default=True, show_default=True, help="Print the whole table, or a line an encoder."
)
@params_option
def report(
    results: Path,
    encoders: tuple[str, ...],
    quality: Path,
    corpora: Path,
    out: Path,
    table: bool,
    params: Path | None,
) -> None:
    """Put the error rates of all encoders into one metrics.json, a Markdown report and a table here."""
    from rich.console import Console

    from pipeline.corpora import read_corpus
    from pipeline.quality import read_quality
    from pipeline.report import markdown_report, read_metrics, summary_line, terminal_table, write_json, write_text

    settings = load_params(params, {"encoders": list(encoders) or None})
    metrics = read_metrics(results, settings.encoders)
    corpus = read_corpus(corpora, settings.corpus) if corpora.exists() else None
    checked = read_quality(quality, settings.encoders)
    write_json(out / "metrics.json", metrics)
    write_text(out / "report.md", markdown_report(metrics, settings, corpus, checked))
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a log has no width of its own
    for encoder, conditions in metrics.items():
        console.print(terminal_table(encoder, conditions) if table else summary_line(encoder, conditions))
    if corpus:
        console.print(f"{settings.corpus}: {corpus.title}", soft_wrap=True)
    console.print(f"Written: {out / 'metrics.json'}, {out / 'report.md'}", soft_wrap=True)
