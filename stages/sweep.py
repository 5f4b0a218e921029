"""`seed sweep`."""

from pathlib import Path

import click

from stages.common import FILE, FOLDER, NEW, STORE, load_params, params_option, progress_bar


@click.command()
@click.argument("grid", type=FILE)
@click.option("--store", type=STORE, required=True, help="Training store: view 0 clean, the others corrupted.")
@click.option("--store-manifest", type=FILE, required=True, help="Its manifest, to hold out whole speakers.")
@click.option("--conditions", type=FOLDER, required=True, help="Folder of the raw stores to measure, <condition>.zarr.")
@click.option("--manifest", type=FILE, required=True, help="Manifest that gives their speakers.")
@click.option("--out", type=NEW, required=True, help="Folder for runs/<key>.json, sweep.csv and sweep.md.")
@params_option
def sweep(
    grid: Path, store: Path, store_manifest: Path, conditions: Path, manifest: Path, out: Path, params: Path | None
) -> None:
    """Train, enhance and measure with every combination of parameters in GRID, a YAML file such as

    \b
        seeds: [0, 1, 2]
        grid:
          train.objective: [seed, dae]
          train.network.predict: [sample, correction]
        runs:
          - {enhance.timestep: 20}

    Everything else is as in the parameter file. Runs that --out has already are not run again, so that a sweep that was
    stopped goes on. Choose by the validation loss or the held-out EERs, which are of training speakers; a choice by the
    test EERs would be one on the test set.
    """  # noqa: D301 (click wants the control character)
    from pipeline.manifest import read_manifest
    from pipeline.report import write_table, write_text
    from pipeline.report.sweeps import markdown, table
    from pipeline.store import EmbeddingStore
    from pipeline.sweep import Data, read_grid, run_all

    settings = load_params(params)
    wanted, seeds = read_grid(grid)
    speakers = {row.utterance: row.speaker for row in read_manifest(store_manifest)}
    data = Data(EmbeddingStore.open(store), speakers, conditions, read_manifest(manifest), manifest)
    with progress_bar("runs", len(wanted) * len(seeds)) as advance:
        rows = run_all(wanted, seeds, settings, data, out / "runs", advance)
    write_table(out / "sweep.csv", *table(rows))
    text = markdown(rows)
    write_text(out / "sweep.md", text)
    click.echo(text, nl=False)
    click.echo(f"{out / 'sweep.csv'}: {len(rows)} runs")
