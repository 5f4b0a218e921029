"""`seed report`."""

from pathlib import Path

import click

from stages.helpers.options import (
    FOLDER,
    NEW,
    corpora_option,
    encoders_option,
    load_params,
    make_console,
    params_option,
)


@click.command()
@click.option("--results", type=FOLDER, default="results/scores", help="Folder of <encoder>/metrics.json.")
@encoders_option
@click.option(
    "--quality",
    type=NEW,
    default="results/quality",
    help="Folder of <encoder>/quality.json from the checks of training stores, if any.",
)
@click.option("--models", type=NEW, default="models", help="Folder of <encoder>/curve.csv from trainings, if any.")
@corpora_option
@click.option("--out", type=NEW, default="results", help="Folder for metrics.json, eer.csv, report.md and report.html.")
@click.option("--png/--no-png", default=False, help="Also write the plots to <out>/plots as PNG, for papers.")
@click.option("--dpi", type=click.IntRange(36, 1200), default=300, help="Resolution of the PNGs.")
@click.option("--table/--no-table", default=True, help="Print the whole table, or one line per encoder.")
@params_option
def report(
    results: Path,
    encoders: tuple[str, ...],
    quality: Path,
    models: Path,
    corpora: Path,
    out: Path,
    png: bool,
    dpi: int,
    table: bool,
    params: Path | None,
) -> None:
    """Collect the error rates of all encoders in one metrics.json, a report, a page with plots, and a printed table.

    Plots need det.csv, histogram.csv, distances.csv, map.csv and curve.csv; those without data are left out.
    """
    from pipeline.data.corpora import read_corpus
    from pipeline.extraction.quality import read_quality
    from pipeline.report import markdown_report, read_metrics, summary_line, terminal_table
    from pipeline.report.notes import list_notes
    from pipeline.report.page import render_page
    from pipeline.report.plots import INSTALL_HINT, build_plots, can_plot
    from pipeline.report.results import EER_COLUMNS, RESULTS, eer_rows
    from pipeline.report.series import read_series
    from pipeline.utils.atomic import write_json, write_table, write_text
    from pipeline.utils.charts import write_png

    settings = load_params(params, {"encoders": list(encoders) or None})
    metrics = read_metrics(results, settings.encoders)
    corpus = read_corpus(corpora, settings.tested_corpus) if corpora.exists() else None
    checked = read_quality(quality, settings.encoders)
    series = {encoder: read_series(results, models, encoder) for encoder in metrics}
    notes = {encoder: list_notes(content, series[encoder].training) for encoder, content in metrics.items()}
    # Everything is made before anything is written, so that a bad input leaves no half of a report.
    eers, text = list(eer_rows(metrics)), markdown_report(metrics, settings, corpus, checked, notes)
    plots, page = {}, ""
    if can_plot():
        plots = {encoder: build_plots(content[RESULTS], series[encoder]) for encoder, content in metrics.items()}
        page = render_page(metrics, plots, settings, corpus, checked, notes)
    written = [out / "metrics.json", out / "report.md"]
    write_json(written[0], metrics)
    write_table(out / "eer.csv", EER_COLUMNS, eers)
    write_text(written[1], text)
    if page:
        written.append(out / "report.html")
        write_text(written[-1], page)
        for encoder, drawn in plots.items() if png else ():
            for plot in drawn:
                written.append(out / "plots" / f"{encoder}-{plot.name}.png")
                write_png(written[-1], {**plot.spec, "title": plot.title}, dpi)
    else:
        (out / "report.html").unlink(missing_ok=True)  # it is from an earlier run
    console = make_console()
    render = terminal_table if table else summary_line
    for encoder, content in metrics.items():
        console.print(render(encoder, content))
        for note in notes[encoder]:
            console.print(f"  {note}", markup=False, soft_wrap=True)
    if corpus:
        console.print(f"{settings.tested_corpus}: {corpus.title}", soft_wrap=True)
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)
    if not can_plot():
        click.echo(f"seed report: {INSTALL_HINT}", err=True)
