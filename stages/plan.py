"""`seed plan`."""

from pathlib import Path

import click

from stages.helpers.options import NEW, corpora_option, load_params, params_option, root_option


@click.command()
@click.option("--corpus", help="Name of a corpus.  [default: corpus of the parameter file]")
@click.option("--manifests", type=NEW, default="data/manifests", help="Folder of <set>.csv, where there are.")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    metavar="[ENCODER=]NUMBER",
    help="Crops of 200 frames that an encoder, or any, encodes a second, by all workers together; repeatable.",
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
    """Say what a run would take, and do nothing: stages, utterances, trials, bytes of stores, and hours.

    Sets without a manifest of this corpus are counted by their files; where these are absent, by the numbers that the
    corpus definition says are published.
    """
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from pipeline.data.corpora import read_corpora
    from pipeline.extraction.plan import make_plan as make

    settings = load_params(params, {"corpus": corpus, "data_root": data_root})
    given = _rates(rates, settings.encoders)
    steps = make(settings, read_corpora(corpora), manifests, given)
    table = Table("stage", "of", title=f"{settings.corpus}: what a run would take")
    for column in ("utterances, crops or trials", "counted by", "store", "hours"):
        table.add_column(column, justify="left" if column == "counted by" else "right")
    for step in steps:
        number = "?" if step.count.number is None else f"{step.count.number:,}"
        crops = f" x {step.crops // max(1, step.count.number or 1)} crops" if step.crops else ""
        size = "" if step.stage not in ("extract", "enhance") else "?" if step.bytes is None else decimal(step.bytes)
        hours = "" if step.stage != "extract" else "?" if step.hours is None else f"{step.hours:,.2f}"
        table.add_row(step.stage, step.what, number + crops, step.count.basis, size, hours)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a log has no width of its own
    console.print(table)
    times = [step.hours for step in steps if step.stage == "extract"]
    known = [number for number in times if number is not None]
    unknown = (
        f", and {len(times) - len(known)} stores without a manifest to tell how long their recordings are"
        if len(known) < len(times)
        else ""
    )
    click.echo(
        f"stores: {decimal(sum(step.bytes or 0 for step in steps))}; extraction: {sum(known):,.1f} hours{unknown}"
    )
    how = "the rates given" if given else f"{max(1, settings.extract.workers)} CPU cores, at the speed measured on one"
    click.echo(
        f"  Hours are crops, by their length, at {how}; reading and corrupting audio, training and scoring come on top."
        " Give the speed of your machine or GPU by --rate; `seed encoder check` measures it."
    )


def _rates(given: tuple[str, ...], encoders: list[str]) -> dict[str | None, float]:
    rates: dict[str | None, float] = {}
    for text in given:
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
