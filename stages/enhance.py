"""`seed enhance`."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import OutputError
from pipeline.utils.paths import Place
from stages.helpers.options import (
    DEVICE,
    MODEL,
    MODEL_HELP,
    OUTPUT,
    STORE,
    enhance_settings,
    load_params,
    params_option,
    progress_bar,
    timestep_option,
)

if TYPE_CHECKING:
    from stages.helpers.stdin import OnBad, StreamFormat


@click.command()
@click.option("--store", type=STORE, help="Store of embeddings to enhance.")
@click.option("--model", type=MODEL, required=True, help=MODEL_HELP)
@click.option("--out", type=OUTPUT, help="Store to write: a folder named ….zarr, or s3://….zarr.")
@click.option(
    "--stdin",
    "stream_format",
    type=click.Choice(["json", "f32"]),
    help="Format of vectors to enhance from standard input to standard output, one at a time, in place of a store."
    " json: one line per vector, a list of numbers or an object with such an `embedding`. f32: little-endian float32"
    " without separators.",
)
@click.option(
    "--info", "with_info", is_flag=True, help="With --stdin json: add how far each vector was moved, and more."
)
@click.option(
    "--on-bad",
    type=click.Choice(["raise", "raw"]),
    help="With --stdin: stop at a vector with NaN or infinite values (raise), or return it unchanged (raw)."
    "  [default: raise]",
)
@timestep_option
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    help="Interpolation weight from raw (0) to enhanced (1) embeddings.  [default: the model's; without adaptation"
    " less, down to 0, for speech unlike its training]",
)
@click.option(
    "--adapt",
    type=STORE,
    help="Store of raw, unlabelled embeddings to adapt the model to: 10 or more, 30 are enough, preferably clean and of"
    " many speakers. Adapt enrolments and tests to one store, or each to its own.  [default: enhance.adapt of the"
    " parameter file]",
)
@click.option("--device", default="auto", help=DEVICE)
@params_option
def enhance(
    store: Place | None,
    model: Place,
    out: Place | None,
    stream_format: "StreamFormat | None",
    with_info: bool,
    on_bad: "OnBad | None",
    timestep: int | None,
    strength: float | None,
    adapt: Place | None,
    device: str,
    params: Path | None,
) -> None:
    """Enhance every embedding of a store, by default with one noise-free reverse step.

    The settings are those of `enhance` in the parameter file. Compare enhanced vectors only with vectors enhanced by
    the same model. --stdin reads no parameter file: it takes one step from the model's timestep at the model's
    strength (docs/systems.md).
    """
    if stream_format is None:
        if with_info or on_bad:
            raise click.UsageError("--info and --on-bad need --stdin")
        if store is None or out is None:
            raise click.UsageError("give --store and --out, or --stdin")
        _enhance_store(store, model, out, timestep, strength, adapt, device, params)
        return
    if any(value is not None for value in (store, out, timestep, params)):
        raise click.UsageError("--stdin excludes --store, --out, --timestep and --params")
    if with_info and stream_format != "json":
        raise click.UsageError("--info needs --stdin json")
    if sys.stdin is None or sys.stdout is None:
        raise OutputError("--stdin: standard input or output is closed. Leave both open, or give --store and --out.")

    from pipeline.model.enhancer import Enhancer
    from pipeline.store.embedding_store import EmbeddingStore
    from stages.helpers.stdin import serve_stdin, warnings_on_stderr

    with warnings_on_stderr():
        enhancer = Enhancer.load(model, device)
        enhancer = enhancer.adapt(EmbeddingStore.open(adapt)) if adapt else enhancer
        serve_stdin(enhancer, stream_format, strength, on_bad or "raise", with_info)


def _enhance_store(
    store: Place,
    model: Place,
    out: Place,
    timestep: int | None,
    strength: float | None,
    adapt: Place | None,
    device: str,
    params: Path | None,
) -> None:
    from functools import partial

    from pipeline.model.diffusion.sampler import Sampling
    from pipeline.model.enhance_store import enhance_store, find_clean, find_reference
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.device import choose_device
    from stages.helpers.dvc_cache import remove_cached_journals

    settings, opened = load_params(params), EmbeddingStore.open(store)
    enhance = enhance_settings(model, settings, timestep, strength)
    remove_cached_journals(store.parent)
    if adapt is None and enhance.adapt:
        adapt = find_reference(enhance.adapt, store)
        if adapt is None:
            click.echo(
                f"  {store}: not adapted, because there is no {enhance.adapt}.zarr beside it (enhance.adapt). To adapt"
                " the model to this speech, give its vectors with --adapt STORE.",
                err=True,
            )
    with progress_bar("enhancing", None) as advance:
        sampling = Sampling(**enhance.sampling())
        vectors = EmbeddingStore.open(adapt) if adapt else None
        reference = find_clean(opened)
        warn = partial(click.echo, err=True)
        done = enhance_store(
            opened, model, out, sampling, settings.seed, choose_device(device), advance, vectors, reference, warn
        )
    adapted = f", adapted to {done.adaptation.vectors:,} vectors" if done.adaptation else ""
    click.echo(f"{out}: {done.vectors:,} vectors enhanced, strength {done.strength:.2f}{adapted}")
    if not done.adaptation:
        _warn_about_domain(store, model, done.atypicality, done.strength, enhance.strength is not None)


def _warn_about_domain(store: Place, model: Place, atypicality: float, strength: float, given: bool) -> None:
    """Say what speech unlike that of the training means for vectors enhanced without adaptation."""
    from pipeline.model.domain import FAMILIAR

    remedy = "Adapt the model to clean, unlabelled vectors of this speech with --adapt STORE."
    if not atypicality:
        if not given:
            click.echo(
                f"  {model}: has no record of its training data, so its strength is the same on any speech. Check with"
                " --strength what suits yours.",
                err=True,
            )
    elif math.isinf(atypicality):
        click.echo(f"  {store}: has no vectors to compare with the training data.", err=True)
    elif not strength and not given:
        click.echo(
            f"  {store}: NOT ENHANCED: the strength is 0, because the speech is unlike that of the training"
            f" (atypicality {atypicality:.1f}, the usual is 1) or because the model did not learn to help. {remedy}",
            err=True,
        )
    elif atypicality > FAMILIAR:
        click.echo(
            f"  {store}: speech is unlike that of the training (atypicality {atypicality:.1f}; usual is 1, trusted up"
            f" to {FAMILIAR:g}). {remedy}",
            err=True,
        )
