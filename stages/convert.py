"""`seed convert`."""

from pathlib import Path

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FILE, OUTPUT, STORE, load_params, params_option


@click.command()
@click.argument("checkpoint", type=FILE)
@click.option("--out", type=OUTPUT, required=True, help="Model to write (….safetensors).")
@click.option(
    "--encoder",
    help="Name of the encoder whose vectors the network takes. Its family and weights come from the parameter file, or"
    " from a family of that name. For any other name only the dimension is known.  [default: that of --store]",
)
@click.option("--store", type=STORE, help="Store of the encoder's vectors, to take the encoder from.")
@click.option(
    "--predict",
    type=click.Choice(["sample", "correction", "epsilon", "v"]),
    default="sample",
    help="Output of the network: the clean vector, the correction to add to the input, the noise, or the velocity.",
)
@click.option(
    "--scale",
    type=click.Choice(["sampling", "both"]),
    default="sampling",
    help="Whether vectors were scaled to length sqrt(D) in training, too (both). Enhancement always scales them.",
)
@click.option("--timesteps", type=click.IntRange(2, 100_000), default=1000, help="Number of diffusion timesteps.")
@click.option("--beta-start", type=float, default=1e-4, help="First variance of the scaled-linear schedule.")
@click.option("--beta-end", type=float, default=0.02, help="Last variance of the schedule.")
@click.option(
    "--timestep", type=click.IntRange(min=0), default=50, help="Timestep to enhance from, noted in the model."
)
@click.option(
    "--ema/--no-ema",
    default=True,
    help="Take the moving average of the weights if the file has one, or always the weights themselves.",
)
@params_option
def convert(
    checkpoint: Path,
    out: Place,
    encoder: str | None,
    store: Place | None,
    predict: str,
    scale: str,
    timesteps: int,
    beta_start: float,
    beta_end: float,
    timestep: int,
    ema: bool,
    params: Path | None,
) -> None:
    """Convert a network that was trained with the code of the SEED paper's authors to a model.

    CHECKPOINT holds the weights of the network: a PyTorch file of tensors, or ….safetensors. The defaults are the
    paper's. The model enhances any speech with strength 1, because its training data is unknown. Its card (….md) is
    written beside it.
    """
    if not (encoder or store):
        raise click.UsageError("give --encoder, the name of the encoder, or --store, a store of its vectors")
    if not out.name.endswith(".safetensors"):
        raise click.UsageError("--out must be a ….safetensors file")
    if timestep >= timesteps:
        raise click.UsageError("--timestep must be below --timesteps")
    if out.resolve() == checkpoint.resolve():
        raise click.UsageError("--out is the checkpoint itself; give another name")

    from pipeline.config.train import Train
    from pipeline.model.card import write_card
    from pipeline.model.convert import PAPER, describe_encoder, describe_store_encoder
    from pipeline.model.convert import convert as run
    from pipeline.model.model_file import save_model
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import check_output
    from pipeline.utils.validation import validated

    check_output(out)
    card = out.with_suffix(".md")
    schedule = {"scale": scale, "timesteps": timesteps, "beta_start": beta_start, "beta_end": beta_end}
    network = PAPER.network.model_dump() | {"predict": predict}
    made = run(checkpoint, validated(Train, PAPER.model_dump() | schedule | {"network": network}, "options"), ema)
    dim, shape = made.model.dim, made.model.settings.network
    if store:
        known = describe_store_encoder(EmbeddingStore.open(store), encoder, dim)
    else:
        known = describe_encoder(str(encoder), load_params(params), dim)
    check_output(card)
    save_model(out, made.model, known, {"converted_from_sha256": made.sha256, "timestep": timestep})
    write_card(out, card)
    names = f"tensors {made.prefix}*" if made.prefix else "all tensors"
    click.echo(f"{out}: D = {dim}, {shape.blocks} blocks, width {shape.width}, predicts {predict}; {names}")
    if "weights_sha256" not in known:
        click.echo(
            f"  the weights of encoder {known['encoder']} are unknown, so stores cannot be checked against them. Give"
            " --store to record them.",
            err=True,
        )
