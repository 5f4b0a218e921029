"""`seed enhance`."""

import math
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from stages.helpers.options import MODEL, OUTPUT, STORE, enhance_settings, load_params, params_option, progress_bar

if TYPE_CHECKING:
    from pipeline.model.enhancer import Enhancer
    from pipeline.utils.paths import Place
    from stages.helpers.stdin import Form, OnBad


@click.command()
@click.option("--store", type=STORE, help="Store of embeddings to enhance.")
@click.option("--model", type=MODEL, required=True, help="Trained model, ….safetensors.")
@click.option("--out", type=OUTPUT, help="Store to write, a folder named ….zarr.")
@click.option(
    "--stdin",
    "form",
    type=click.Choice(["json", "f32"]),
    help="Instead of a store: enhance vectors from standard input to standard output, one at a time. json: a line"
    " each, a list of numbers or an object with such an `embedding`. f32: little-endian float32, nothing between.",
)
@click.option(
    "--info", "with_info", is_flag=True, help="With --stdin json: say of each how far it was moved, and more."
)
@click.option(
    "--on-bad",
    type=click.Choice(["raise", "raw"]),
    help="With --stdin: stop at a vector with NaN or infinite values, or hand it back raw.  [default: raise]",
)
@click.option(
    "--timestep",
    type=click.IntRange(min=0),
    help="Diffusion timestep to step back from.  [default: the model's, unless the parameter file says else]",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    help="Share of the way from raw (0) to enhanced (1) embeddings.  [default: as training found it, or less, see"
    " --domain]",
)
@click.option(
    "--domain",
    type=STORE,
    help="Raw store, best clean, that says what kind of speech it is: the model's strength is lowered, to 0 at last,"
    " where that is unlike its training. The same one for all stores to be compared.  [default: --store]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:<index> or mps.")
@params_option
def enhance(
    store: "Place | None",
    model: "Place",
    out: "Place | None",
    form: "Form | None",
    with_info: bool,
    on_bad: "OnBad | None",
    timestep: int | None,
    strength: float | None,
    domain: "Place | None",
    device: str,
    params: Path | None,
) -> None:
    """Enhance every embedding of a store, by one noise-free reverse step unless `enhance` of the parameters says else.

    Enhanced vectors are to be compared with vectors enhanced by the same model. With --stdin they take one step from
    the timestep that the model's file gives, at its strength, and parameter files are not read; docs/systems.md.
    """
    if form is None:
        if with_info or on_bad:
            raise click.UsageError("--info and --on-bad go with --stdin")
        if store is None or out is None:
            raise click.UsageError("give --store and --out, or --stdin")
        _store(store, model, out, timestep, strength, domain, device, params)
        return
    if any(given is not None for given in (store, out, timestep, params)):
        raise click.UsageError("--stdin does not go with --store, --out, --timestep or --params")
    if with_info and form != "json":
        raise click.UsageError("--info goes with --stdin json")
    with _warnings_told():
        _stream(_enhancer(model, domain, device), form, strength, on_bad or "raise", with_info)


def _enhancer(model: "Place", domain: "Place | None", device: str) -> "Enhancer":
    from pipeline.model.enhancer import Enhancer
    from pipeline.store.embedding_store import EmbeddingStore

    loaded = Enhancer.load(model, device)
    return loaded.for_domain(EmbeddingStore.open(domain)) if domain else loaded


def _stream(enhancer: "Enhancer", form: "Form", strength: float | None, on_bad: "OnBad", with_info: bool) -> None:
    from functools import partial

    from pipeline.errors import OutputError
    from stages.helpers.stdin import enhance_frames, enhance_lines, frame_size

    if sys.stdin is None or sys.stdout is None:
        raise OutputError("--stdin: standard input or output is closed. Leave both open, or give --store and --out.")
    if form == "json":
        answers = enhance_lines(enhancer, sys.stdin.buffer, strength, on_bad, with_info)
    else:
        frames = iter(partial(sys.stdin.buffer.read, frame_size(enhancer)), b"")
        answers = enhance_frames(enhancer, frames, strength, on_bad)
    for answer in answers:
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Tell each warning of ours on a line of stderr; once, whatever its figures, for it may be one of each vector."""
    from pipeline.errors import SeedWarning

    told = set()

    def tell(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        kind = re.sub(r"[\d.]+", "", str(message))
        if kind not in told:
            told.add(kind)
            click.echo(f"seed: warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SeedWarning)
        warnings.showwarning = tell
        yield


def _store(
    store: "Place",
    model: "Place",
    out: "Place",
    timestep: int | None,
    strength: float | None,
    domain: "Place | None",
    device: str,
    params: Path | None,
) -> None:
    from functools import partial

    from pipeline.model.diffusion.sampler import Sampling
    from pipeline.model.domain import FAMILIAR
    from pipeline.model.enhance_store import enhance_store as run
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.device import choose_device
    from stages.helpers.dvc_cache import forget_saved

    settings, opened = load_params(params), EmbeddingStore.open(store)
    way = enhance_settings(model, settings, timestep, strength)
    forget_saved(store.parent)
    with progress_bar("enhancing", None) as advance:
        how = Sampling(**way.model_dump())
        reference = EmbeddingStore.open(domain) if domain else None
        tell = partial(click.echo, err=True)
        done = run(opened, model, out, how, settings.seed, choose_device(device), advance, reference, tell)
    click.echo(f"{out}: {done.vectors:,} vectors enhanced, strength {done.strength:.2f}")
    if not done.atypicality and way.strength is None:
        click.echo(
            f"  {model}: does not know the speech that it was trained on, and goes as far on any. Check on your own"
            " what --strength does for it.",
            err=True,
        )
    if math.isinf(done.atypicality):
        click.echo(f"  {domain or store}: has no vectors that could say what kind of speech it is.", err=True)
    elif done.atypicality > FAMILIAR:
        click.echo(
            f"  {domain or store}: speech is unlike that of the training (atypicality {done.atypicality:.1f}; usual is"
            f" 1, trusted up to {FAMILIAR:g}). Train on your own speech, or check what --strength does for it.",
            err=True,
        )
