"""`seed adapt`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FOLDER, MODEL, MODEL_HELP, OUTPUT, STORE, params_option
from stages.helpers.recordings import Sounds, encode_folder, noise_option, rooms_option

if TYPE_CHECKING:
    from pipeline.model.model_file import ModelFile
    from pipeline.model.seed_model import SeedModel

FILES = 100


@click.command()
@click.argument("recordings", type=FOLDER, required=False)
@click.option("--encoder", help="With RECORDINGS: the encoder, a name in the parameter file or a family.")
@click.option(
    "--store",
    type=STORE,
    help="Instead of RECORDINGS: store of raw, unlabelled embeddings of the domain: 10 or more, 30 are enough,"
    " preferably clean and of many speakers.",
)
@click.option(
    "--means",
    type=click.IntRange(1, 2),
    default=1,
    help="With --store: number of means. 2 is for a pool of 100 embeddings or more from mixed, unknown conditions: each"
    " embedding is moved by the mean of its half of the pool.",
)
@click.option("--model", type=MODEL, help=f"{MODEL_HELP}  [default: the packaged model of the encoder's name]")
@click.option("--out", type=OUTPUT, required=True, help="Adapted model to write (….safetensors).")
@click.option(
    "--files", type=click.IntRange(min=10), default=FILES, help="Maximum number of recordings, evenly spaced by name."
)
@noise_option
@rooms_option
@params_option
def adapt(
    recordings: Path | None,
    encoder: str | None,
    store: Place | None,
    means: int,
    model: Place | None,
    out: Place,
    files: int,
    noise: Path | None,
    rooms: Path | None,
    params: Path | None,
) -> None:
    """Adapt a model to another domain of speech, without labels.

    RECORDINGS holds 10 or more audio files of the domain (50 are enough), at any depth, of more than two seconds each,
    preferably clean and of many speakers. Crops of each are encoded clean, in noise at 0-15 dB, and in rooms. The mean
    and the whitening of the model are refitted to them, and the strength is chosen; the network stays as it is. From
    20 recordings on, the gain is measured and printed. It takes about a minute for 50 files. Compare embeddings that
    the new model enhanced with each other only, not with those of the original model.

    With --store, only the mean is adapted: that of the store replaces that of the training. Embeddings enhanced by
    several such adaptations of one model can be compared: adapt enrolments and tests to one store, or each to its own.

    The new model file names the model that it came from, and its card (….md) is written beside it.
    """
    if (recordings is None) == (store is None):
        raise click.UsageError("give either a folder of recordings with --encoder, or --store")
    if (recordings is None) != (encoder is None):
        raise click.UsageError("--encoder goes with a folder of recordings, which need it")
    if recordings is not None and means > 1:
        raise click.UsageError("--means goes with --store")
    if store is not None and (noise or rooms):
        raise click.UsageError("--noise and --rooms go with a folder of recordings")
    if store is not None and model is None:
        raise click.UsageError("--store needs --model")
    if out.suffix != ".safetensors":
        raise click.UsageError("--out must be a ….safetensors file")
    if model is not None and out.resolve() == model.resolve():
        raise click.UsageError("--out is the model itself; give another name")

    from pipeline.errors import VectorError
    from pipeline.model.card import write_card
    from pipeline.model.model_file import load_model, save_model
    from pipeline.model.packaged import require_packaged
    from pipeline.utils.atomic import check_output

    card, source = out.with_suffix(".md"), recordings or store
    for file in (out, card):
        check_output(file)
    place = model or require_packaged(encoder or "")
    loaded = load_model(place)
    if recordings is not None and encoder is not None:
        adapted = _refit(loaded, place, recordings, encoder, files, Sounds(noise, rooms), params)
    else:
        assert store is not None
        adapted = _move(loaded, place, store, means)
    record = adapted.adaptation
    assert record is not None
    problem = record.describe_problem()
    if not record.is_plausible:
        raise VectorError(f"{source}: {problem}.")
    save_model(out, adapted, loaded.encoder, loaded.metadata.get("training", {}))
    write_card(out, card)
    what = "recordings" if record.recordings else "vectors"
    click.echo(
        f"{out}: adapted to {record.vectors:,} {what}, whose mean has a weight of {record.weight:.2f}; strength"
        f" {adapted.default_strength:.2f}"
    )
    if problem:
        click.echo(f"  {source}: {problem}.", err=True)


def _move(loaded: "ModelFile", place: Place, store: Place, means: int) -> "SeedModel":
    """Return a model adapted to the mean of a store, or to its two means."""
    from pipeline.model.adaptation import adapt_model
    from pipeline.model.model_file import check_encoder
    from pipeline.store.embedding_store import EmbeddingStore

    opened = EmbeddingStore.open(store)
    opened.check_raw()
    check_encoder(loaded, opened.attributes, place, store)
    vectors = opened.read()[opened.ok].reshape(-1, opened.dim)
    return adapt_model(loaded.model, vectors, loaded.base_sha256, f"{place} with {store}", means=means)


def _refit(
    loaded: "ModelFile",
    place: Place,
    recordings: Path,
    encoder: str,
    files: int,
    sounds: Sounds,
    params: Path | None,
) -> "SeedModel":
    """Return a model refitted to recordings, and print what it gains."""
    from pipeline.training.refit import refit_model
    from pipeline.training.verdict import ADAPTED, MIN_RECORDINGS, RAW, try_model
    from stages.helpers.verdicts import print_rates, print_reason

    crops, seed = encode_folder(recordings, files, encoder, loaded, place, sounds, params)
    strength = None
    if len(crops) >= MIN_RECORDINGS:
        verdict = try_model(loaded.model, crops, loaded.timestep, seed)
        strength = verdict.adapted_strength
        print_rates(verdict, len(crops))
        print_reason(verdict)
        if verdict.best != ADAPTED:
            click.echo(
                f"  {recordings}: on these recordings, the adapted model is not the best:"
                f" {'use raw vectors' if verdict.best == RAW else 'use the model as it is'}, or try more recordings"
                " (--files).",
                err=True,
            )
    else:
        click.echo(
            f"  {len(crops)} recordings are too few to measure the gain ({MIN_RECORDINGS} are needed).", err=True
        )
    return refit_model(loaded.model, crops, strength, loaded.base_sha256, f"{place} with {recordings}")
