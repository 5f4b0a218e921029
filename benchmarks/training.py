"""Measure training: our loop against a bare one, a whole run, and the same steps with the encoder in the loop.

    python -m benchmarks.training          (all of them, one after another)
    python -m benchmarks.training loop     [--dim 256] [--steps 150] [--repeats 5]
    python -m benchmarks.training whole    [--pairs 4000] [--dim 256]
    python -m benchmarks.training online   [--encoder ge2e --encoder campplus] [--crops 32]

`loop` runs the same network, loss, batches and optimiser in a plain torch loop, without the moving average, recorded
losses, checkpoints or progress, in turn with ours, and takes the median of the ratios. It does so for the default
network and for the larger one of the paper. Checkpoints are as frequent as by default, and there is at least one. It
also times a checkpoint, and the curve and loggers of an epoch. `whole` is a training with default parameters on
generated pairs, from the store to the model. `online` reads, corrupts and encodes the crops that steps would need
without a cache, a clean and three corrupted crops of every pair, for a sample of utterances, and extrapolates to the
steps of `whole`.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from time import perf_counter

import click
import numpy as np
import torch

from benchmarks.extraction import crops_of, generate
from pipeline.config.params import Params
from pipeline.config.train import NetworkSettings, Train
from pipeline.extraction.cluster import RemoteJob
from pipeline.model.diffusion.contrast import add_contrast
from pipeline.model.diffusion.network import DiffusionNetwork
from pipeline.model.diffusion.objective import load_distance
from pipeline.model.diffusion.objectives.seed import seed_loss
from pipeline.model.diffusion.schedule import cumulative_alphas, scaled_linear_betas
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.checkpoints import FILE, Checkpoint, Checkpoints
from pipeline.training.loggers import open_loggers
from pipeline.training.loop import run_training
from pipeline.training.pairs import swap_displacements
from pipeline.training.progress import Epoch, write_training_curve
from pipeline.training.state import TrainingState
from pipeline.training.train import train

VIEWS, EPOCHS = 4, Train().max_epochs
VECTORS = VIEWS + 1
"""Number of vectors in a pair: its views and their target."""


class Fixed:
    """An epoch with a given number of batches, drawn from pairs in memory."""

    def __init__(self, pairs: torch.Tensor, steps: int, batch: int) -> None:
        self.pairs, self.validation, self.validated = steps * batch, pairs[:32], ""
        self._pairs, self._steps, self._batch = pairs, steps, batch

    def epoch(self, rng: np.random.Generator) -> Generator[torch.Tensor, None, None]:
        for _ in range(self._steps):
            yield self._pairs[torch.from_numpy(rng.integers(len(self._pairs), size=self._batch))]


def ours(pairs: torch.Tensor, steps: int, settings: Train) -> float:
    """Return the seconds of `steps` steps of our loop and its checkpoints, without the time before and after them."""
    times: list[float] = []
    model = SeedModel(pairs.shape[2], settings)
    watch = lambda pace: times.append(perf_counter()) if pace.epoch else None  # noqa: E731
    once = settings.model_copy(update={"max_epochs": 1})
    feed = Fixed(pairs, steps + 1, settings.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Checkpoints(Path(folder, "m.safetensors"), min(settings.save_every, steps))) as saves,
    ):
        run_training(model, feed, once, 50, np.random.default_rng(0), "", None, watch, saves.checkpoint(""))
    return times[steps] - times[0]


def beside(dim: int, settings: Train) -> tuple[float, float]:
    """Return the seconds of a checkpoint, and of logging an epoch to the curve, TensorBoard and DVCLive."""
    model, saved, count = SeedModel(dim, settings), [], 10

    class Timed(Checkpoint):
        def step(self, state: TrainingState) -> None:
            started = perf_counter()
            super().step(state)
            saved.append(perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        feed = Fixed(torch.randn(settings.batch_size, VECTORS, dim), count, settings.batch_size)
        with closing(Checkpoints(Path(folder, "m.safetensors"), 1)) as saves:
            once, timed = settings.model_copy(update={"max_epochs": 1}), Timed(saves, saves.folder / FILE, "", "")
            run_training(model, feed, once, 50, np.random.default_rng(0), "", None, None, timed)
        epochs = [Epoch(epoch, 0.5, 0.5, 0.5, 0.5) for epoch in range(EPOCHS)]
        with open_loggers(["tensorboard", "dvclive"], Path(folder)) as told:
            started = perf_counter()
            for index, epoch in enumerate(epochs):
                write_training_curve(Path(folder, "curve.csv"), epochs[: index + 1])
                for tell in told:
                    tell(epoch)
            each = (perf_counter() - started) / EPOCHS
    return statistics.median(saved), each


def bare(pairs: torch.Tensor, steps: int, settings: Train) -> float:
    """Return the seconds of `steps` steps of a plain loop."""
    dim, batch = pairs.shape[2], settings.batch_size
    shape = settings.network
    network = DiffusionNetwork(dim, shape.blocks, shape.dropout, shape.predict, width=shape.width).train()
    distance = add_contrast(load_distance(settings.loss), settings.contrast, VECTORS, settings.temperature)
    highest, source = 1 + (settings.max_timestep or settings.timesteps - 1), torch.Generator()
    abar = cumulative_alphas(scaled_linear_betas(settings.timesteps))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            started = perf_counter()
        chosen = pairs[torch.randint(len(pairs), (batch,))]
        t, noise = torch.randint(highest, (batch,)), torch.randn(batch, dim)
        chosen = swap_displacements(chosen, settings.swap, settings.scale == "both", source)
        loss = seed_loss(network, chosen[:, 0], chosen[:, 1:], t, noise, abar, distance)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return perf_counter() - started


@click.group(invoke_without_command=True)
@click.option("--threads", default=2, show_default=True, help="Number of torch threads.")
@click.pass_context
def main(context: click.Context, threads: int) -> None:
    """Measure training."""
    torch.set_num_threads(threads)
    if context.invoked_subcommand is None:
        for command in ("loop", "whole", "online"):
            arguments = ["--threads", str(threads), command]
            subprocess.run([sys.executable, "-m", "benchmarks.training", *arguments], check=True)
            print(flush=True)


@main.command()
@click.option("--dim", default=256, show_default=True)
@click.option("--steps", default=150, show_default=True)
@click.option("--repeats", default=5, show_default=True)
def loop(dim: int, steps: int, repeats: int) -> None:
    """Measure our loop against a bare one."""
    pairs = torch.nn.functional.normalize(torch.randn(4000, VECTORS, dim), dim=2) * dim**0.5
    print(f"batches of {Train().batch_size} pairs of {VIEWS} views, D = {dim}")
    for name, network in (("default", NetworkSettings()), ("the paper's", NetworkSettings(blocks=3, width=2))):
        settings = Train(network=network)
        taken = [(bare(pairs, steps, settings), ours(pairs, steps, settings)) for _ in range(repeats)]
        rates = [steps / statistics.median(side) for side in zip(*taken, strict=True)]
        ratio = statistics.median(plain / own for plain, own in taken)
        print(f"{name} network, steps/s: bare {rates[0]:.2f}, ours {rates[1]:.2f}; ratio {ratio:.3f}")
        print(f"at least 0.95: {'yes' if ratio >= 0.95 else 'NO'}")
        save, epoch = beside(dim, settings)
        share = save / (settings.save_every / rates[1] + save)
        print(f"a checkpoint: {1000 * save:.0f} ms, {share:.1%} of the time at one in {settings.save_every} steps")
        print(f"curve, TensorBoard and DVCLive: {1000 * epoch:.0f} ms per epoch", flush=True)


@main.command()
@click.option("--pairs", default=4000, show_default=True)
@click.option("--dim", default=256, show_default=True)
def whole(pairs: int, dim: int) -> None:
    """Measure a whole training with default parameters."""
    rng, draws = np.random.default_rng(0), 4
    rows = pairs // draws
    values = np.repeat(rng.standard_normal((rows, 1, 1, dim), dtype=np.float32), draws, axis=1)
    values = values + 0.5 * rng.standard_normal((rows, draws, VIEWS, dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder, "s.zarr"), [f"{row % 125}/{row}" for row in range(rows)]
        write_store(path, names, values, np.full(rows, OK, np.uint8), {"encoder": "toy", "dim": dim})
        started = perf_counter()
        settings = Train(max_epochs=EPOCHS, patience=EPOCHS)  # no early stopping
        speakers = {name: name.split("/")[0] for name in names}
        with closing(Checkpoints(Path(folder, "m.safetensors"), settings.save_every)) as saves:
            run = train(EmbeddingStore.open(path), settings, 0, 50, speakers, checkpoints=saves)
        taken = perf_counter() - started
    print(f"{pairs:,} pairs, D = {dim}, {len(run.curve) - 1} epochs: {taken:.0f} s")
    print(f"under 120 s: {'yes' if taken < 120 else 'NO'}")


@main.command()
@click.option("--encoder", "encoders", multiple=True, default=("ge2e", "campplus"), show_default=True)
@click.option("--crops", default=32, show_default=True, help="Number of utterances to measure on.")
@click.option("--pairs", default=4000, show_default=True, help="Number of pairs to extrapolate to.")
def online(encoders: tuple[str, ...], crops: int, pairs: int) -> None:
    """Measure encoding at every step, as published, against one extraction of four draws."""
    params = Params()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), crops)
        for name in encoders:
            lists = Path(folder, "manifest.csv"), Path(folder, "augment.csv"), Path(folder)
            job = RemoteJob(*lists, "train", name, None, params.model_dump_json()).load()
            started = perf_counter()
            made = crops_of(job, crops)
            for views in made:
                job.encoder(views)
            each = (perf_counter() - started) / sum(map(len, made))
            settings = params.train
            step = ours(torch.randn(1000, VECTORS, job.encoder.dim), 20, settings) / 20
            steps = EPOCHS * pairs / settings.batch_size * step / 3600
            anew, once = (count * VIEWS * each / 3600 for count in (EPOCHS * pairs, pairs))
            print(f"{name}: {1 / each:.0f} crops/s read, corrupted and encoded; {EPOCHS} epochs of {pairs:,} pairs")
            print(f"  h: steps {steps:.3f}, encoding at every step {anew:.2f}, encoding once {once:.3f}")
            alone, whole = (anew + steps) / steps, (anew + steps) / (once + steps)
            print(f"  online to cached: {alone:.0f} times a training, {whole:.0f} with its extraction", flush=True)


if __name__ == "__main__":
    main()
