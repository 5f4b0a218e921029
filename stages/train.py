"""`seed train`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FILE, MODEL, OUTPUT, STORE, load_params, params_option

if TYPE_CHECKING:
    from pipeline.utils.paths import Place


@click.command()
@click.option("--store", type=STORE, required=True, help="Training store: view 0 clean, the others corrupted.")
@click.option(
    "--manifest", type=FILE, help="Its manifest, to hold out whole speakers for validation; else utterances are."
)
@click.option("--out", type=OUTPUT, required=True, help="Model file to write, ….safetensors.")
@click.option("--curve", type=OUTPUT, help="CSV file of losses by epoch to write.  [default: <model>.curve.csv]")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed of initial weights, order, timesteps and noise.  [default: 0]"
)
@click.option("--device", help="auto, cpu, cuda, cuda:<index> or mps.  [default: auto]")
@click.option(
    "--init", type=MODEL, help="Model to go on from with these pairs (fine-tuning); its preconditioner is kept."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where a training of the same store, parameters and seed was killed; else begin.",
)
@click.option(
    "--save-every",
    type=click.IntRange(min=0),
    help="Steps between two saves of what --resume goes on from; 0: none.  [default: 100]",
)
@click.option(
    "--log",
    multiple=True,
    type=click.Choice(["tensorboard", "dvclive"]),
    help="Also log losses, gradient norm and learning rate by epoch to <model>.log/; may be repeated.  [default: none]",
)
@params_option
def train(
    store: "Place",
    manifest: Path | None,
    out: "Place",
    curve: "Place | None",
    seed: int | None,
    device: str | None,
    init: "Place | None",
    resume: bool,
    save_every: int | None,
    log: tuple[str, ...],
    params: Path | None,
) -> None:
    """Train SEED on pairs of clean and noisy embeddings. No speaker labels are learnt from.

    The epoch with the lowest loss on held-out training speakers is kept. The curve is written after every epoch. A
    training that was killed goes on with --resume, to the very same model and curve. Beside the model, its card ….md
    says what it was trained on, what it does, and how to use it.
    """
    curve, card = curve or out.with_suffix(".curve.csv"), out.with_suffix(".md")
    if out.suffix != ".safetensors" or curve in (out, card):
        raise click.UsageError("--out is a file named ….safetensors, and --curve another file than it and its ….md")
    if init and init.resolve() == out.resolve():
        raise click.UsageError("--init is the model to write; give another --out")

    from contextlib import ExitStack, closing

    import torch

    from pipeline.data.utterances import read_speakers
    from pipeline.errors import ConfigError
    from pipeline.model.card import write_card
    from pipeline.model.model_file import save_model
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.training.checkpoints import Checkpoints
    from pipeline.training.loggers import loggers
    from pipeline.training.progress import Epoch, write_training_curve
    from pipeline.training.train import train as run
    from pipeline.utils.atomic import check_output
    from pipeline.utils.device import choose_device
    from stages.helpers.dvc_cache import forget_saved
    from stages.helpers.progress import training_progress

    changes = {"seed": seed, "train.device": device, "train.save_every": save_every, "train.log": list(log) or None}
    settings = load_params(params, changes)
    if not isinstance(out, Path) and (resume or settings.train.log):
        raise ConfigError(f"{out}: --resume and train.log need a local --out, for they keep files beside the model.")
    for each in (out, card, curve):
        check_output(each)
    forget_saved(store.parent)
    opened = EmbeddingStore.open(store)
    speakers = read_speakers(opened, manifest) if manifest else None
    torch.set_num_threads(settings.train.threads)  # the order of sums, so the last bits, depend on it
    where = choose_device(settings.train.device)
    with ExitStack() as stack:
        saves, logs = None, []
        if isinstance(out, Path):
            saves = stack.enter_context(closing(Checkpoints(out, settings.train.save_every, resume, _say)))
            logs = stack.enter_context(loggers(settings.train.log, out.with_suffix(".log")))
        tell, pace = stack.enter_context(training_progress(settings.train.max_epochs))
        epochs: list[Epoch] = []

        def ended(epoch: Epoch) -> None:
            epochs.append(epoch)
            if isinstance(curve, Path):
                write_training_curve(curve, epochs)
            for logger in (*logs, tell):
                logger(epoch)

        timestep = settings.enhance.timestep
        trained = run(opened, settings.train, settings.seed, timestep, speakers, where, ended, pace, saves, init)
        best = trained.curve[trained.best_epoch]
        save_model(out, trained.model, opened.encoder(), trained.summary())
        write_card(out, card)
        write_training_curve(curve, trained.curve)
        if saves:
            saves.remove()
    before = "as given" if init else "untrained"
    click.echo(
        f"{out}: epoch {best.epoch} of {len(trained.curve) - 1}, validation loss {best.validation_loss:.4f}"
        f" ({before} {trained.curve[0].validation_loss:.4f}) on {trained.held_out} held out"
    )
    if not best.epoch and settings.train.max_epochs:
        click.echo(
            f"  {out}: no epoch was better than the network {before}; nothing was learnt. Look at the curve, {curve}; a"
            " lower train.learning_rate, or more pairs, may help.",
            err=True,
        )
    if failed := trained.facts.get("folds_failed"):
        click.echo(f"  train.folds: {failed} The strength was found by the held-out speakers instead.", err=True)
    if trained.stopped:
        click.echo(
            f"  stopped: {trained.stopped}; the weights of epoch {best.epoch} are kept. Lower train.learning_rate, or"
            " set train.clip.",
            err=True,
        )


def _say(line: str) -> None:
    click.echo(f"  {line}", err=True)
