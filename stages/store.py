"""`seed store`: check an embedding store."""

from pathlib import Path

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FILE, OUTPUT, load_params, make_console, params_option, paths_option, progress_bar


@click.group()
def store() -> None:
    """Check an embedding store."""


@store.command()
@click.argument("path", metavar="STORE", type=OUTPUT)
@click.option("--manifest", type=FILE, help="Manifest of the store, to also read some of the recordings.")
@paths_option
@click.option("--files", type=click.IntRange(min=1), help="Number of recordings to read.  [default: 50]")
@click.option("--out", type=OUTPUT, help="Folder for quality.json and quality.png.")
@click.option("--picture/--no-picture", default=True, help="Draw quality.png; needs the extra plots.")
@params_option
def check(
    path: Place,
    manifest: Path | None,
    root: Path,
    files: int | None,
    out: Place | None,
    picture: bool,
    params: Path | None,
) -> None:
    """Check a store against the thresholds of the parameter file.

    Verifies checksums. Counts rows that are missing, failed, NaN or near-duplicates of others. Measures norms, and the
    distance between the clean view and each other view. With --manifest, also looks for recordings that are clipped,
    upsampled, or far above full scale. The exit code is 1 if a threshold in `quality` of the parameter file is
    exceeded.
    """
    from dataclasses import replace

    from rich.table import Table
    from rich.text import Text

    from pipeline.data.manifest import read_manifest
    from pipeline.data.recordings import check_recordings
    from pipeline.errors import QualityError
    from pipeline.extraction.quality import FILE as JSON
    from pipeline.extraction.quality import as_json, exceeded_thresholds, list_counts, list_percentiles, measure_store
    from pipeline.extraction.quality_plot import draw_quality, require_plots
    from pipeline.metrics.quantiles import PERCENTS
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import write_json

    settings = load_params(params, {"quality.files": files})
    if out and picture:
        require_plots()
    limits = settings.quality
    opened = EmbeddingStore.open(path, unfinished=True)
    has_checksum = opened.verify()
    figures, values = measure_store(opened, limits, settings.seed)
    if manifest:
        rows = read_manifest(manifest)
        with progress_bar("reading recordings", min(limits.files, len(rows))) as advance:
            recordings = check_recordings(rows, root, limits.files, settings.seed, advance)
        figures = replace(figures, recordings=recordings)
    console = make_console()
    counts = Table(title=str(path), show_header=False)
    for name, text in list_counts(figures):
        counts.add_row(name, Text(text))  # as Text, brackets in ids are not markup
    counts.add_row("checksum", "matches" if has_checksum else "none: unfinished, or of an older version")
    console.print(counts)
    if figures.recordings and figures.recordings.loud:
        click.echo(
            f"  {figures.recordings.loud:,} recordings with a peak far above full scale, first:"
            f" {figures.recordings.loud_names[0]}. Export them again, or set extract.loud_audio to normalize.",
            err=True,
        )
    table = Table("", *(f"{percent} %" for percent in PERCENTS), title="Quantiles")
    for name, spread in list_percentiles(figures):
        table.add_row(name, *(f"{spread[str(percent)]:z.4f}" if spread else "–" for percent in PERCENTS))
    console.print(table)
    if out:
        write_json(out / JSON, as_json(figures, limits))
        if picture:
            draw_quality(values, path.name, out / "quality.png")
        console.print(f"Written: {out}", soft_wrap=True)
    over = exceeded_thresholds(figures, limits)
    if over:
        raise QualityError(f"{path}: {'; '.join(over)}. Fix the data, or raise the thresholds in the parameter file.")
