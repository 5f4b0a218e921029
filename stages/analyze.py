"""`seed analyze`: where the method ends."""

from pathlib import Path

import click

from stages.helpers.options import FOLDER, NEW, load_params, params_option, progress_bar


@click.group()
def analyze() -> None:
    """Look into what the figures are made of."""


@analyze.command()
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Encoders to look at, repeatable.  [default: those of the parameter file]",
)
@click.option(
    "--embeddings",
    type=FOLDER,
    default="data/embeddings",
    show_default=True,
    help="Folder with <encoder>/train.zarr and <encoder>/<condition>.zarr, raw.",
)
@click.option(
    "--enhanced",
    type=FOLDER,
    default="data/enhanced",
    show_default=True,
    help="Folder with <encoder>/<condition>.zarr, enhanced.",
)
@click.option(
    "--models", type=FOLDER, default="models", show_default=True, help="Folder with <encoder>/seed.safetensors."
)
@click.option(
    "--manifests", type=FOLDER, default="data/manifests", show_default=True, help="Folder with train.csv and clean.csv."
)
@click.option(
    "--more",
    type=NEW,
    default="data/gap",
    show_default=True,
    help="Folder with what is there of <encoder>/snr.zarr (noise of one SNR a view), <encoder>/train/<condition>.zarr"
    " and <encoder>/test/<condition>.zarr (training and test speakers, sounds of training).",
)
@click.option("--bins", type=click.IntRange(2), default=8, show_default=True, help="Ranges of the gap.")
@click.option(
    "--snr-width",
    type=click.FloatRange(0, min_open=True),
    default=2.5,
    show_default=True,
    help="Of ranges of the SNR of training crops, dB.",
)
@click.option(
    "--max-trials", type=click.IntRange(2), default=200_000, show_default=True, help="Trials of a condition, at most."
)
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0),
    multiple=True,
    default=(0, 1, 2),
    show_default=True,
    help="Of the trainings at one SNR, repeatable.",
)
@click.option(
    "--longer",
    type=click.IntRange(1),
    help="How many times as many epochs these have as the parameter file says.  [default: as make up for a store of"
    " fewer pairs than the training store]",
)
@click.option(
    "--out",
    type=NEW,
    default="results/gap",
    show_default=True,
    help="Folder for limits.md, the tables as CSV, pictures/limits-*.svg, and runs/<key>.json.",
)
@params_option
def gap(
    encoders: tuple[str, ...],
    embeddings: Path,
    enhanced: Path,
    models: Path,
    manifests: Path,
    more: Path,
    bins: int,
    snr_width: float,
    max_trials: int,
    seeds: tuple[int, ...],
    longer: int | None,
    out: Path,
    params: Path | None,
) -> None:
    """Measure how far corruption moves embeddings, and what enhancement is worth at which distance.

    Distances by view and SNR; EERs, raw and enhanced, by how far the test side was moved, and where enhancement stops
    to help; trainings on noise of one SNR each; and what is left of the gain on other speakers and sounds. What has no
    stores is left out. Trainings that --out has already are not made again.
    """
    from pipeline.report.limits.files import write_tables
    from pipeline.report.limits.limits import Options, Places, analyse
    from pipeline.report.limits.page import markdown
    from pipeline.report.plots import HOW_TO, can_plot, write_svg
    from pipeline.utils.atomic import write_text

    settings = load_params(params, {"encoders": list(encoders) or None})
    options, found = Options(bins, snr_width, max_trials, seeds, longer), {}
    with progress_bar("analyze", None) as advance:
        for name in settings.encoders:
            places = Places(
                embeddings / name,
                enhanced / name,
                models / name / "seed.safetensors",
                manifests / "train.csv",
                manifests / "clean.csv",
                more / name,
            )
            tell = lambda what, name=name: advance(1, f"{name}: {what}")  # noqa: E731
            found[name] = analyse(places, settings, options, out / "runs", tell)
    pictures = []
    if can_plot():
        from pipeline.report.limits.charts import pictures as drawn

        pictures = drawn(found)
    written = write_tables(found, out)
    for plot in pictures:
        written.append(out / "pictures" / f"limits-{plot.name}.svg")
        write_svg(written[-1], plot)
    text = markdown(found, pictures, "pictures")
    written.append(out / "limits.md")
    write_text(written[-1], text)
    click.echo(text.split("\n## ")[0])
    click.echo(f"Written: {', '.join(map(str, written))}")
    if not can_plot():
        click.echo(f"seed analyze gap: {HOW_TO}", err=True)
