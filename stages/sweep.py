"""`seed sweep`."""

from pathlib import Path

import click

from stages.helpers.options import FILE, FOLDER, NEW, STORE, load_params, params_option, progress_bar


@click.command()
@click.argument("grid", type=FILE)
@click.option("--store", type=STORE, required=True, help="Training store: view 0 clean, the other views corrupted.")
@click.option(
    "--store-manifest", type=FILE, required=True, help="Manifest of the training store, to hold out whole speakers."
)
@click.option(
    "--conditions", type=FOLDER, required=True, help="Folder of the raw stores to measure on, <condition>.zarr."
)
@click.option("--manifest", type=FILE, required=True, help="Manifest with the speakers of --conditions.")
@click.option("--out", type=NEW, required=True, help="Folder for runs/<key>.json, sweep.csv and sweep.md.")
@params_option
def sweep(
    grid: Path, store: Path, store_manifest: Path, conditions: Path, manifest: Path, out: Path, params: Path | None
) -> None:
    """Train, enhance and measure with every combination of parameters in GRID, a YAML file such as:

    \b
        seeds: [0, 1, 2]
        grid:
          train.objective: [seed, dae]
          train.network.predict: [sample, correction]
        runs:
          - {enhance.timestep: 20}

    All other parameters are those of the parameter file. Runs whose results are in --out are not repeated, so an
    interrupted sweep resumes. Choose by the validation loss or the held-out EERs, which are measured on training
    speakers. Choosing by the test EERs would be tuning on the test set.

    Combinations that are invalid are refused before the first run. A run that fails, for example because its loss is no
    longer a number, is listed in the tables, left out of the means and of the choice, and repeated the next time; the
    other runs continue. The exit code is 1 only if all runs fail.
    """  # noqa: D301 (click wants the control character)
    from pipeline.data.manifest import read_manifest
    from pipeline.data.trials.left_out import note_failed
    from pipeline.data.utterances import read_speakers_and_corpora
    from pipeline.errors import TrainingError
    from pipeline.report.sweep_tables import build_sweep_table, render_sweep
    from pipeline.scoring.condition_stores import open_condition_stores
    from pipeline.scoring.evaluation import find_failed
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.training.aligned_stores import align_stores
    from pipeline.training.sweep.data import SweepData
    from pipeline.training.sweep.grid import read_grid
    from pipeline.training.sweep.run import run_sweep
    from pipeline.training.sweep.selection import FAILED
    from pipeline.utils.atomic import write_table, write_text

    settings = load_params(params)
    wanted, seeds = read_grid(grid)
    opened = EmbeddingStore.open(store)
    speakers, corpora = read_speakers_and_corpora(opened, store_manifest)
    failed = find_failed(open_condition_stores({"raw": conditions}, settings.conditions))
    data = SweepData(align_stores([opened], [corpora]), speakers, conditions, read_manifest(manifest), manifest)
    with progress_bar("runs", len(wanted) * len(seeds)) as advance:
        rows = run_sweep(wanted, seeds, settings, data, out / "runs", advance)
    write_table(out / "sweep.csv", *build_sweep_table(rows))
    text = render_sweep(rows) + (f"\nTest set: {note_failed(failed)}.\n" if failed else "")
    write_text(out / "sweep.md", text)
    reasons = [row[FAILED] for row in rows if FAILED in row]
    if len(reasons) == len(rows):
        raise TrainingError(f"{out / 'sweep.csv'}: {len(rows)} of {len(rows)} runs failed; the first: {reasons[0]}")
    click.echo(text, nl=False)
    click.echo(f"{out / 'sweep.csv'}: {len(rows)} runs" + (f", {len(reasons)} of them failed" if reasons else ""))
