"""`seed convert`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FILE, OUTPUT, STORE, load_params, params_option

if TYPE_CHECKING:
    from pipeline.utils.paths import Place


@click.command()
@click.argument("checkpoint", type=FILE)
@click.option("--out", type=OUTPUT, required=True, help="Model to write, ….safetensors.")
@click.option(
    "--encoder",
    help="Name of the encoder whose vectors the network takes. Its family and weights are those of the parameter file,"
    " or of a family of that name; of any other name nothing is known but the length of vectors.  [default: that of"
    " --store]",
)
@click.option("--store", type=STORE, help="Store of that encoder's vectors, which says which encoder it is.")
@click.option(
    "--predict",
    type=click.Choice(["sample", "correction", "epsilon", "v"]),
    default="sample",
    show_default=True,
    help="What the network's output is: the clean vector, what to add to the input, the noise, or the velocity.",
)
@click.option(
    "--scale",
    type=click.Choice(["sampling", "both"]),
    default="sampling",
    show_default=True,
    help="Where vectors had length sqrt(D): in enhancement only, or in training as well. Enhancement is the same.",
)
@click.option("--timesteps", type=click.IntRange(2, 100_000), default=1000, show_default=True, help="Of diffusion.")
@click.option(
    "--beta-start", type=float, default=1e-4, show_default=True, help="First variance of the scaled-linear schedule."
)
@click.option("--beta-end", type=float, default=0.02, show_default=True, help="Last variance.")
@click.option(
    "--timestep",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="That it is to enhance at: noted in the model.",
)
@click.option(
    "--ema/--no-ema",
    default=True,
    show_default=True,
    help="Where the file has a moving average of the weights beside them, take that, or not.",
)
@params_option
def convert(
    checkpoint: Path,
    out: "Place",
    encoder: str | None,
    store: "Place | None",
    predict: str,
    scale: str,
    timesteps: int,
    beta_start: float,
    beta_end: float,
    timestep: int,
    ema: bool,
    params: Path | None,
) -> None:
    """Make a model of a network that was trained by the code of the SEED paper's authors.

    CHECKPOINT holds the network's weights: a PyTorch file of tensors, or ….safetensors. The defaults are the paper's.
    The model goes all of the way (strength 1) on any kind of speech, as it does not know what it was trained on. Its
    card, ….md, is written beside it.
    """
    if not (encoder or store):
        raise click.UsageError("give --encoder, the encoder's name, or --store, a store of its vectors")
    if not out.name.endswith(".safetensors"):
        raise click.UsageError("--out is a file named ….safetensors")
    if timestep >= timesteps:
        raise click.UsageError("--timestep must be below --timesteps")
    if out.resolve() == checkpoint.resolve():
        raise click.UsageError("--out is the checkpoint itself; give another name")

    from pipeline.config.train import Train
    from pipeline.model.card import write_card
    from pipeline.model.convert import PAPER, encoder_of, encoder_of_store
    from pipeline.model.convert import convert as run
    from pipeline.model.model_file import save_model
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import check_output
    from pipeline.utils.validation import validated

    check_output(out)
    card = out.with_suffix(".md")
    told = {"scale": scale, "timesteps": timesteps, "beta_start": beta_start, "beta_end": beta_end}
    network = PAPER.network.model_dump() | {"predict": predict}
    made = run(checkpoint, validated(Train, PAPER.model_dump() | told | {"network": network}, "options"), ema)
    dim, shape = made.model.dim, made.model.settings.network
    if store:
        known = encoder_of_store(EmbeddingStore.open(store), encoder, dim)
    else:
        known = encoder_of(str(encoder), load_params(params), dim)
    check_output(card)
    save_model(out, made.model, known, {"converted_from_sha256": made.sha256, "timestep": timestep})
    write_card(out, card)
    names = f"tensors {made.prefix}*" if made.prefix else "all tensors"
    click.echo(f"{out}: D = {dim}, {shape.blocks} blocks, width {shape.width}, predicts {predict}; {names}")
    if "weights_sha256" not in known:
        click.echo(
            f"  of encoder {known['encoder']} no weights are known, so that nobody can check whether a store is of it;"
            " --store knows them",
            err=True,
        )
