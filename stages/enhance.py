"""`seed enhance`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.common import MODEL, OUTPUT, STORE, load_params, params_option, progress_bar

if TYPE_CHECKING:
    from pipeline.places import Place


@click.command()
@click.option("--store", type=STORE, required=True, help="Store of embeddings to enhance.")
@click.option("--model", type=MODEL, required=True, help="Trained model, ….safetensors.")
@click.option("--out", type=OUTPUT, required=True, help="Store to write, a folder named ….zarr.")
@click.option("--timestep", type=click.IntRange(min=0), help="Diffusion timestep to step back from.  [default: 50]")
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
    store: "Place",
    model: "Place",
    out: "Place",
    timestep: int | None,
    strength: float | None,
    domain: "Place | None",
    device: str,
    params: Path | None,
) -> None:
    """Enhance every embedding of a store, by one noise-free reverse step unless `enhance` of the parameters says else.

    Enhanced vectors are to be compared with vectors enhanced by the same model.
    """
    from functools import partial

    from pipeline.device import choose_device
    from pipeline.diffusion.sampler import Sampling
    from pipeline.domain import FAMILIAR
    from pipeline.enhance import enhance as run
    from pipeline.store import EmbeddingStore
    from stages.previous import forget_saved

    settings = load_params(params, {"enhance.timestep": timestep, "enhance.strength": strength})
    forget_saved(store.parent)
    opened = EmbeddingStore.open(store)
    with progress_bar("enhancing", None) as advance:
        how = Sampling(**settings.enhance.model_dump())
        reference = EmbeddingStore.open(domain) if domain else None
        tell = partial(click.echo, err=True)
        done = run(opened, model, out, how, settings.seed, choose_device(device), advance, reference, tell)
    click.echo(f"{out}: {done.vectors:,} vectors enhanced, strength {done.strength:.2f}")
    if not done.atypicality and settings.enhance.strength is None:
        click.echo(
            f"  {model}: does not know the speech that it was trained on, and goes as far on any. Check on your own"
            " what --strength does for it.",
            err=True,
        )
    if done.atypicality > FAMILIAR:
        click.echo(
            f"  {domain or store}: speech is unlike that of the training (atypicality {done.atypicality:.1f}; usual is"
            f" 1, trusted up to {FAMILIAR:g}). Train on your own speech, or check what --strength does for it.",
            err=True,
        )
