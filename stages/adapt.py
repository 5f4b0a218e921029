"""`seed adapt`."""

import click

from pipeline.utils.paths import Place
from stages.helpers.options import MODEL, MODEL_HELP, OUTPUT, STORE


@click.command()
@click.option("--model", type=MODEL, required=True, help=MODEL_HELP)
@click.option(
    "--store",
    type=STORE,
    required=True,
    help="Store of raw, unlabelled embeddings of the domain: 10 or more, 30 are enough, preferably clean and of many"
    " speakers.",
)
@click.option("--out", type=OUTPUT, required=True, help="Adapted model to write (….safetensors).")
def adapt(model: Place, store: Place, out: Place) -> None:
    """Adapt a model to another domain of speech, without labels and without training.

    The mean of the embeddings takes the place of the mean of training. The new model file names the model that it came
    from, and its card (….md) is written beside it. Embeddings enhanced by different adaptations of one model can be
    compared with each other: adapt enrolments and tests to one store, or each to its own.
    """
    if out.suffix != ".safetensors":
        raise click.UsageError("--out must be a ….safetensors file")
    if out.resolve() == model.resolve():
        raise click.UsageError("--out is the model itself; give another name")

    from pipeline.errors import VectorError
    from pipeline.model.adaptation import adapt_model
    from pipeline.model.card import write_card
    from pipeline.model.model_file import check_encoder, load_model, save_model
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import check_output

    card = out.with_suffix(".md")
    for file in (out, card):
        check_output(file)
    opened, loaded = EmbeddingStore.open(store), load_model(model)
    opened.check_raw()
    check_encoder(loaded, opened.attributes, model, store)
    vectors = opened.read()[opened.ok].reshape(-1, opened.dim)
    adapted = adapt_model(loaded.model, vectors, loaded.base_sha256, f"{model} with {store}")
    record = adapted.adaptation
    assert record is not None
    problem = record.describe_problem()
    if not record.is_plausible:
        raise VectorError(f"{store}: {problem}.")
    save_model(out, adapted, loaded.encoder, loaded.metadata.get("training", {}))
    write_card(out, card)
    click.echo(
        f"{out}: adapted to {record.vectors:,} vectors, whose mean has a weight of {record.weight:.2f}; strength"
        f" {adapted.default_strength:.2f}"
    )
    if problem:
        click.echo(f"  {store}: {problem}.", err=True)
