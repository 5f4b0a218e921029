"""`seed train`."""

from pathlib import Path

import click

from pipeline.utils.paths import Place
from stages.helpers.options import DEVICE, FILE, MODEL, OUTPUT, STORE, load_params, params_option


class TrainCommand(click.Command):
    """A command whose help lists the registered objectives."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names that train.objective may take."""
        from pipeline.config.objectives import list_objectives

        formatter.write_paragraph()
        formatter.write_text(f"Objectives (train.objective): {', '.join(list_objectives())}.")


@click.command(cls=TrainCommand)
@click.option(
    "--store",
    "stores",
    type=STORE,
    multiple=True,
    required=True,
    help="Training store: view 0 clean, the other views corrupted. Repeatable: each store is a domain of speech, and"
    " all are shifted to the mean clean embedding of the first.",
)
@click.option(
    "--manifest",
    "manifests",
    type=FILE,
    multiple=True,
    help="Manifest of the store, to hold out whole speakers for validation; with several stores, one for each, in the"
    " same order.  [default: hold out utterances]",
)
@click.option("--out", type=OUTPUT, required=True, help="Model file to write (….safetensors).")
@click.option("--curve", type=OUTPUT, help="CSV file for the losses of each epoch.  [default: <model>.curve.csv]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of the initial weights, batch order, timesteps and noise.  [default: 0]",
)
@click.option("--device", help=f"{DEVICE}  [default: auto]")
@click.option(
    "--init", type=MODEL, help="Model to fine-tune on this store. Its preconditioner is kept.  [default: a new model]"
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume an interrupted run with the same store, parameters and seed; otherwise start from scratch.",
)
@click.option(
    "--save-every",
    type=click.IntRange(min=0),
    help="Number of steps between checkpoints for --resume; 0 for none.  [default: 100]",
)
@click.option(
    "--log",
    multiple=True,
    type=click.Choice(["tensorboard", "dvclive"]),
    help="Tool to log losses, gradient norm and learning rate with, into <model>.log/; repeatable.  [default: none]",
)
@params_option
def train(
    stores: tuple[Place, ...],
    manifests: tuple[Path, ...],
    out: Place,
    curve: Place | None,
    seed: int | None,
    device: str | None,
    init: Place | None,
    resume: bool,
    save_every: int | None,
    log: tuple[str, ...],
    params: Path | None,
) -> None:
    """Train SEED on pairs of clean and noisy embeddings, without speaker labels.

    Several stores, and the corpora that a manifest names, are domains of speech. A model trained on several domains is
    for speech of the first one as it is, and for speech of any other after `seed adapt`.

    Keeps the epoch with the lowest loss on held-out training speakers, and writes the training curve after every epoch.
    With train.keep_every, models of other epochs are kept in <model>.epochs, too.
    --resume continues an interrupted training to exactly the same model and curve. A model card (….md) beside the
    model says what it was trained on, what it does, and how to use it.
    """
    curve, card = curve or out.with_suffix(".curve.csv"), out.with_suffix(".md")
    if out.suffix != ".safetensors" or curve in (out, card):
        raise click.UsageError("--out must be a ….safetensors file, and --curve must differ from it and from its ….md")
    if len(manifests) not in (0, len(stores)):
        raise click.UsageError(f"{len(manifests)} --manifest for {len(stores)} --store; give one for each, or none")
    if init and init.resolve() == out.resolve():
        raise click.UsageError("--init and --out are the same file; give another --out")

    from contextlib import ExitStack, closing

    import torch

    from pipeline.data.utterances import read_speakers_and_corpora
    from pipeline.errors import ConfigError
    from pipeline.model.card import write_card
    from pipeline.model.model_file import save_model
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.training.aligned_stores import align_stores, join_speakers
    from pipeline.training.checkpoints import Checkpoints
    from pipeline.training.kept_epochs import EpochFolder
    from pipeline.training.loggers import open_loggers
    from pipeline.training.progress import Epoch, write_training_curve
    from pipeline.training.train import train as run
    from pipeline.utils.atomic import check_output
    from pipeline.utils.device import choose_device
    from stages.helpers.dvc_cache import remove_cached_journals
    from stages.helpers.progress import training_progress

    changes = {"seed": seed, "train.device": device, "train.save_every": save_every, "train.log": list(log) or None}
    settings = load_params(params, changes)
    if not isinstance(out, Path) and (resume or settings.train.log or settings.train.keep_every):
        raise ConfigError(
            f"{out}: --resume, train.log and train.keep_every keep files beside the model, so they need a local --out."
        )
    for file in (out, card, curve):
        check_output(file)
    for store in stores:
        remove_cached_journals(store.parent)
    parts = [EmbeddingStore.open(store) for store in stores]
    known = [read_speakers_and_corpora(part, manifest) for part, manifest in zip(parts, manifests, strict=False)]
    speakers = join_speakers([each for each, _ in known]) if known else None
    opened = align_stores(parts, [corpora for _, corpora in known])
    torch.set_num_threads(settings.train.threads)  # the last bits depend on the number of threads
    target = choose_device(settings.train.device)
    with ExitStack() as stack:
        checkpoints, logs, keep = None, [], None
        if isinstance(out, Path):
            checkpoints = stack.enter_context(closing(Checkpoints(out, settings.train.save_every, resume, _print_note)))
            logs = stack.enter_context(open_loggers(settings.train.log, out.with_suffix(".log")))
            facts = {"seed": settings.seed, "timestep": settings.enhance.timestep}
            keep = EpochFolder(out.with_suffix(".epochs"), opened.encoder(), facts).keep
        show_epoch, show_pass = stack.enter_context(training_progress(settings.train.max_epochs))
        epochs: list[Epoch] = []

        def end_epoch(epoch: Epoch) -> None:
            epochs.append(epoch)
            if isinstance(curve, Path):
                write_training_curve(curve, epochs)
            for logger in (*logs, show_epoch):
                logger(epoch)

        timestep = settings.enhance.timestep
        trained = run(
            opened,
            settings.train,
            settings.seed,
            timestep,
            speakers,
            target,
            end_epoch,
            show_pass,
            checkpoints,
            init,
            keep,
            _print_note,
        )
        best = trained.curve[trained.best_epoch]
        save_model(out, trained.model, opened.encoder(), trained.summary())
        write_card(out, card)
        write_training_curve(curve, trained.curve)
        if checkpoints:
            checkpoints.remove()
    start = "as given" if init else "untrained"
    click.echo(
        f"{out}: epoch {best.epoch} of {len(trained.curve) - 1}, validation loss {best.validation_loss:z.4f}"
        f" ({start} {trained.curve[0].validation_loss:z.4f}) on {trained.held_out} held out"
    )
    if not best.epoch and settings.train.max_epochs:
        click.echo(
            f"  {out}: no epoch was better than the network {start}; nothing was learnt. Look at the curve, {curve}. A"
            " lower train.learning_rate or more pairs may help.",
            err=True,
        )
    if settings.train.strength and not float(trained.model.strength):
        click.echo(
            f"  {out}: THE STRENGTH IS 0: on held-out speakers, nothing was better than raw vectors, so `seed enhance`"
            " will return them unchanged. Train on more speakers or corpora (--store, repeated), or check the views"
            " with `seed store check`.",
            err=True,
        )
    if failed := trained.facts.get("folds_failed"):
        click.echo(f"  train.folds: {failed} The strength was found on the held-out speakers instead.", err=True)
    if trained.stopped:
        click.echo(
            f"  stopped: {trained.stopped}; the weights of epoch {best.epoch} are kept. Lower train.learning_rate or"
            " set train.clip.",
            err=True,
        )


def _print_note(line: str) -> None:
    click.echo(f"  {line}", err=True)
