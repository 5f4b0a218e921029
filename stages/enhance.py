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
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:<index> or mps.")
@params_option
def enhance(
    store: "Place", model: "Place", out: "Place", timestep: int | None, device: str, params: Path | None
) -> None:
    """Enhance every embedding of a store, by one noise-free reverse step unless `enhance` of the parameters says else.

    Enhanced vectors are to be compared with vectors enhanced by the same model.
    """
    from functools import partial

    from pipeline.device import choose_device
    from pipeline.diffusion.sampler import Sampling
    from pipeline.enhance import enhance as run
    from pipeline.store import EmbeddingStore
    from stages.previous import forget_saved

    settings = load_params(params, {"enhance.timestep": timestep})
    forget_saved(store.parent)
    opened = EmbeddingStore.open(store)
    with progress_bar("enhancing", None) as advance:
        how = Sampling(**settings.enhance.model_dump())
        count = run(
            opened, model, out, how, settings.seed, choose_device(device), advance, partial(click.echo, err=True)
        )
    click.echo(f"{out}: {count:,} vectors enhanced")
