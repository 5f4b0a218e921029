"""`seed train`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.common import FILE, OUTPUT, STORE, load_params, params_option, progress_bar

if TYPE_CHECKING:
    from pipeline.places import Place


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
@params_option
def train(
    store: "Place",
    manifest: Path | None,
    out: "Place",
    curve: "Place | None",
    seed: int | None,
    device: str | None,
    params: Path | None,
) -> None:
    """Train SEED on pairs of clean and noisy embeddings. No speaker labels are learnt from.

    The epoch with the lowest loss on held-out training speakers is kept.
    """
    curve = curve or out.with_suffix(".curve.csv")
    if out.suffix != ".safetensors" or curve == out:
        raise click.UsageError("--out is a file named ….safetensors, and --curve another file")

    import csv
    import math

    import torch

    from pipeline.device import choose_device
    from pipeline.files import check_output, replacing
    from pipeline.manifest import read_manifest
    from pipeline.model import save_model
    from pipeline.pace import Pace
    from pipeline.store import EmbeddingStore
    from pipeline.train import Epoch
    from pipeline.train import train as run
    from stages.previous import forget_saved

    settings = load_params(params, {"seed": seed, "train.device": device})
    check_output(out)
    check_output(curve)
    forget_saved(store.parent)
    opened = EmbeddingStore.open(store)
    speakers = {row.utterance: row.speaker for row in read_manifest(manifest)} if manifest else None
    torch.set_num_threads(settings.train.threads)  # the order of sums, so the last bits, depend on it
    where = choose_device(settings.train.device)
    with progress_bar("training", settings.train.max_epochs) as advance:

        def show(epoch: Epoch) -> None:
            advance(1 if epoch.epoch else 0)

        def pace(now: Pace) -> None:
            what = f"epoch {now.epoch}" if now.epoch else "first pass"
            advance(0, f"training, {what}: {now.done / now.pairs:.0%}, {now.rate:,.0f} pairs/s")

        trained = run(opened, settings.train, settings.seed, settings.enhance.timestep, speakers, where, show, pace)
    best = trained.curve[trained.best_epoch]
    summary = {"best_epoch": best.epoch, "validation_loss": best.validation_loss, "held_out": trained.held_out}
    if trained.stopped:
        summary["stopped"] = trained.stopped
    save_model(out, trained.model, opened.encoder(), summary)
    with replacing(curve) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("epoch", "train_loss", "validation_loss", "gradient_norm"))
        for row in trained.curve:
            cells = (row.train_loss, row.validation_loss, row.gradient_norm)
            writer.writerow((row.epoch, *("" if math.isnan(value) else f"{value:.6f}" for value in cells)))
    click.echo(
        f"{out}: epoch {best.epoch} of {len(trained.curve) - 1}, validation loss {best.validation_loss:.4f}"
        f" (untrained {trained.curve[0].validation_loss:.4f}) on {trained.held_out} held out"
    )
    if trained.stopped:
        click.echo(
            f"  stopped: {trained.stopped}; the weights of epoch {best.epoch} are kept. Lower train.learning_rate, or"
            " set train.clip.",
            err=True,
        )
