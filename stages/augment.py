"""`seed augment`: listen to corrupted speech."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FILE, NEW, STORE, load_params, params_option, paths_option

if TYPE_CHECKING:
    from pipeline.audio.denoise import Denoise


@click.group()
def augment() -> None:
    """Re-create a corrupted view of an utterance as a WAV file."""


@augment.command()
@click.argument("utterance")
@click.option("--manifest", type=FILE, required=True, help="Manifest with the utterance (CSV: utterance,path,…).")
@click.option("--augment", type=FILE, help="List of the noise, music, rooms and talkers to mix in (CSV: kind,path,…).")
@click.option(
    "--set", "set_name", default="train", help="Set of the view: 'train' or a condition, as for `seed extract`."
)
@click.option("--view", help="View to write: clean or a key of extract.views.  [default: the view of the condition]")
@click.option("--draw", type=click.IntRange(min=0), default=0, help="Number of the crop to write, from 0.")
@click.option("--out", type=NEW, required=True, help="WAV file to write, 16 kHz mono.")
@click.option(
    "--sample-format",
    type=click.Choice(["float", "pcm16"]),
    default="float",
    help="Format of the samples: float is exactly the input of the encoder; pcm16 clips samples above full scale.",
)
@click.option("--store", type=STORE, help="Embedding store to check the trace of the view against.")
@paths_option
@click.option("--seed", type=click.IntRange(min=0), help="Seed of crops and corruption.  [default: 0]")
@click.option(
    "--frames", type=click.IntRange(min=10), help="Length of a training crop in 10 ms frames.  [default: 200]"
)
@click.option(
    "--denoise",
    type=click.Choice(["none", "rnnoise"]),
    default="none",
    help="Denoiser to apply to the crop after corruption, as for `seed extract`.",
)
@params_option
def preview(
    utterance: str,
    manifest: Path,
    augment: Path | None,
    set_name: str,
    view: str | None,
    draw: int,
    out: Path,
    sample_format: str,
    store: Place | None,
    root: Path,
    seed: int | None,
    frames: int | None,
    denoise: "Denoise",
    params: Path | None,
) -> None:
    """Re-create one view of UTTERANCE, and print its corruptions.

    The view is the one that `seed extract` encodes. SNRs, files and crops are printed. Manifest, lists, parameters and
    seed must be those of the extraction. --store checks that they are.
    """
    from pipeline.audio.denoise import load_denoiser
    from pipeline.config.recipes import recipe_for
    from pipeline.data.manifest import read_augment, read_manifest
    from pipeline.extraction.preview import check_trace, describe, make_preview, write_wave

    settings = load_params(params, {"seed": seed, "extract.frames": frames})
    denoiser = load_denoiser(denoise)
    sources = read_augment(augment, root) if augment else {}
    recipe = recipe_for(settings, set_name)
    which = settings.seed, utterance, view, draw, settings.extract.loud_audio
    made = make_preview(read_manifest(manifest), root, recipe, sources, *which)
    if store is not None:
        check_trace(store, recipe, utterance, view, draw, made.trace, denoiser.name if denoiser else None)
    write_wave(out, denoiser(made.wave) if denoiser else made.wave, sample_format)
    for line in describe(made):
        click.echo(line)
    if denoiser:
        click.echo(f"denoised by {denoiser.name}")
    same = f"; same trace as in {store}" if store else ""
    click.echo(f"{out}: {len(made.wave) / 16_000:.2f} s{same}")
