"""`seed augment`: hear what happens to the speech."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FILE, FOLDER, NEW, STORE, load_params, params_option

if TYPE_CHECKING:
    from pipeline.config.encoder import Denoise
    from pipeline.utils.paths import Place


@click.group()
def augment() -> None:
    """Augmentation: re-create any view of any utterance as a WAV."""


@augment.command()
@click.argument("utterance")
@click.option("--manifest", type=FILE, required=True, help="List that holds the utterance (CSV: utterance,path).")
@click.option("--augment", "listed", type=FILE, help="Noise, music, rooms and talkers to mix in (CSV: kind,path).")
@click.option("--set", "set_name", default="train", show_default=True, help="'train' or a condition, as for extract.")
@click.option("--view", help="View to hear: clean or a key of extract.views.  [default: the only one of a condition]")
@click.option("--draw", type=click.IntRange(min=0), default=0, show_default=True, help="Crop to hear, from 0.")
@click.option("--out", type=NEW, required=True, help="WAV file to write, 16 kHz mono.")
@click.option(
    "--sample-format",
    type=click.Choice(["float", "pcm16"]),
    default="float",
    show_default=True,
    help="float is what the encoder hears, to the bit; pcm16 clips what is louder than full scale.",
)
@click.option("--store", type=STORE, help="Embedding store, whose trace of the view must be the same.")
@click.option("--root", type=FOLDER, default=".", show_default=True, help="Folder that the paths are relative to.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of crops and corruption.  [default: 0]")
@click.option(
    "--frames", type=click.IntRange(min=10), help="Length of a training crop in 10 ms frames.  [default: 200]"
)
@click.option(
    "--denoise",
    type=click.Choice(["none", "rnnoise"]),
    default="none",
    show_default=True,
    help="What the crop goes through after it was corrupted, as for extract.",
)
@params_option
def preview(
    utterance: str,
    manifest: Path,
    listed: Path | None,
    set_name: str,
    view: str | None,
    draw: int,
    out: Path,
    sample_format: str,
    store: "Place | None",
    root: Path,
    seed: int | None,
    frames: int | None,
    denoise: "Denoise",
    params: Path | None,
) -> None:
    """Re-create one view of UTTERANCE as extract makes it, and print what happened to it: SNRs, files, crops.

    Lists, parameters and seed must be those of the extraction; with --store, that is checked.
    """
    from pipeline.audio.augment.recipe import recipe_for
    from pipeline.audio.denoise import load_denoiser
    from pipeline.data.manifest import read_augment, read_manifest
    from pipeline.extraction.preview import check_trace, describe, make_preview, write_wave

    settings = load_params(params, {"seed": seed, "extract.frames": frames})
    denoiser = load_denoiser(denoise)
    sources = read_augment(listed, root) if listed else {}
    recipe = recipe_for(settings, set_name)
    made = make_preview(read_manifest(manifest), root, recipe, sources, settings.seed, utterance, view, draw)
    if store is not None:
        check_trace(store, recipe, utterance, view, draw, made.trace, denoiser.name if denoiser else None)
    write_wave(out, denoiser(made.wave) if denoiser else made.wave, sample_format)
    for line in describe(made):
        click.echo(line)
    if denoiser:
        click.echo(f"denoised by {denoiser.name}")
    same = f"; the trace is that of {store}" if store else ""
    click.echo(f"{out}: {len(made.wave) / 16_000:.2f} s{same}")
