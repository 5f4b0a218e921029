"""`seed plan`."""

from pathlib import Path

import click

from stages.helpers.options import NEW, corpora_option, load_params, make_console, params_option, root_option


@click.command()
@click.option("--corpus", help="Name of a corpus.  [default: all of corpus of the parameter file]")
@click.option("--manifests", type=NEW, default="data/manifests", help="Folder of <set>.csv, if any.")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    metavar="[ENCODER=]NUMBER",
    help="Number of 200-frame crops per second that all workers together encode, with ENCODER or with any; repeatable."
    "  [default: as measured on CPU cores]",
)
@corpora_option
@root_option
@params_option
def plan(
    corpus: str | None,
    manifests: Path,
    rates: tuple[str, ...],
    corpora: Path,
    data_root: str | None,
    params: Path | None,
) -> None:
    """Estimate what a run takes: utterances, trials, bytes, hours.

    Nothing is run. Sets without a manifest of this corpus are counted by their files or, without these, by the
    published numbers in the corpus definition.
    """
    from rich.filesize import decimal
    from rich.table import Table

    from pipeline.data.corpora import read_corpora
    from pipeline.extraction.plan import make_plan

    settings = load_params(params, {"corpus": corpus, "data_root": data_root})
    speeds = _parse_rates(rates, settings.encoders)
    steps = make_plan(settings, read_corpora(corpora), manifests, speeds)
    table = Table("stage", "of", title=f"{', '.join(settings.corpus)}: what a run takes")
    for column in ("utterances, crops or trials", "counted by", "store", "hours"):
        table.add_column(column, justify="left" if column == "counted by" else "right")
    for step in steps:
        number = "?" if step.count.number is None else f"{step.count.number:,}"
        crops = f" x {step.crops // max(1, step.count.number or 1)} crops" if step.crops else ""
        size = "" if step.stage not in ("extract", "enhance") else "?" if step.bytes is None else decimal(step.bytes)
        hours = "" if step.stage != "extract" else "?" if step.hours is None else f"{step.hours:,.2f}"
        table.add_row(step.stage, step.name, number + crops, step.count.source, size, hours)
    make_console(log_width=140).print(table)
    times = [step.hours for step in steps if step.stage == "extract"]
    known = [number for number in times if number is not None]
    unknown = (
        f", and {len(times) - len(known)} stores of unknown duration, because they have no manifest"
        if len(known) < len(times)
        else ""
    )
    click.echo(
        f"stores: {decimal(sum(step.bytes or 0 for step in steps))}; extraction: {sum(known):,.1f} hours{unknown}"
    )
    cores = max(1, settings.extract.workers)
    basis = "the given rates" if speeds else f"{cores} CPU cores, at the speed measured on one"
    click.echo(
        f"  Hours are for encoding crops at {basis}. Reading and corrupting audio, training and scoring come on top."
        " Set the speed of your machine or GPU with --rate; `seed encoder check` measures it."
    )


def _parse_rates(texts: tuple[str, ...], encoders: list[str]) -> dict[str | None, float]:
    rates: dict[str | None, float] = {}
    for text in texts:
        name, separator, number = text.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not rate > 0 or (separator and name not in encoders):
            raise click.UsageError(
                f"--rate {text}: must be a number above 0, or ENCODER=NUMBER of {', '.join(encoders)}"
            )
        rates[name or None] = rate
    return rates
