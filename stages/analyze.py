"""`seed analyze`: where the method reaches its limits."""

from pathlib import Path

import click

from stages.helpers.options import FOLDER, NEW, encoders_option, load_params, params_option, progress_bar


@click.group()
def analyze() -> None:
    """Find where enhancement stops helping, and why."""


@analyze.command()
@encoders_option
@click.option(
    "--embeddings",
    type=FOLDER,
    default="data/embeddings",
    help="Folder of the raw stores, <encoder>/train.zarr and <encoder>/<condition>.zarr.",
)
@click.option(
    "--enhanced",
    type=FOLDER,
    default="data/enhanced",
    help="Folder of the enhanced stores, <encoder>/<condition>.zarr.",
)
@click.option("--models", type=FOLDER, default="models", help="Folder of the models, <encoder>/seed.safetensors.")
@click.option("--manifests", type=FOLDER, default="data/manifests", help="Folder of train.csv and clean.csv.")
@click.option(
    "--more",
    type=NEW,
    default="data/gap",
    help="Folder of optional stores: <encoder>/snr.zarr (one SNR of noise per view), <encoder>/train/<condition>.zarr"
    " and <encoder>/test/<condition>.zarr (training and test speakers with the sounds of training).",
)
@click.option("--bins", type=click.IntRange(2, 1000), default=8, help="Number of ranges of the gap.")
@click.option(
    "--snr-width",
    type=click.FloatRange(0, min_open=True),
    default=2.5,
    help="Width of the SNR ranges of training crops, in dB.",
)
@click.option("--max-trials", type=click.IntRange(2), default=200_000, help="Maximum number of trials per condition.")
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2**63 - 1),
    multiple=True,
    default=(0, 1, 2),
    help="Seed of the trainings at one SNR; repeatable.",
)
@click.option(
    "--longer",
    type=click.IntRange(1, 1000),
    help="Factor on the number of epochs of the trainings at one SNR.  [default: makes up for a store with fewer pairs"
    " than the training store]",
)
@click.option(
    "--out",
    type=NEW,
    default="results/gap",
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
    """Measure the gain of enhancement by how far corruption moves embeddings.

    Reports distances by view and SNR; raw and enhanced EERs by how far the test side was moved, and where enhancement
    stops helping; trainings on noise of a single SNR; and how much of the gain remains on other speakers and sounds.
    Parts without stores are left out. Trainings whose results are in --out are not repeated.
    """
    from pipeline.report.limits.files import write_tables
    from pipeline.report.limits.limits import AnalysisOptions, AnalysisPaths, analyse
    from pipeline.report.limits.page import render_limits
    from pipeline.report.plots import INSTALL_HINT, can_plot
    from pipeline.utils.atomic import write_text
    from pipeline.utils.charts import write_svg

    settings = load_params(params, {"encoders": list(encoders) or None})
    options, found = AnalysisOptions(bins, snr_width, max_trials, seeds, longer), {}
    with progress_bar("analyze", None) as advance:
        for name in settings.encoders:
            paths = AnalysisPaths(
                embeddings / name,
                enhanced / name,
                models / name / "seed.safetensors",
                manifests / "train.csv",
                manifests / "clean.csv",
                more / name,
            )
            tell = lambda what, name=name: advance(1, f"{name}: {what}")  # noqa: E731
            found[name] = analyse(paths, settings, options, out / "runs", tell)
    pictures = []
    if can_plot():
        from pipeline.report.limits.charts import build_limits_plots

        pictures = build_limits_plots(found)
    written = write_tables(found, out)
    for plot in pictures:
        written.append(out / "pictures" / f"limits-{plot.name}.svg")
        write_svg(written[-1], plot.spec)
    text = render_limits(found, pictures, "pictures")
    written.append(out / "limits.md")
    write_text(written[-1], text)
    click.echo(text.split("\n## ")[0])
    click.echo(f"Written: {', '.join(map(str, written))}")
    if not can_plot():
        click.echo(f"seed analyze gap: {INSTALL_HINT}", err=True)
