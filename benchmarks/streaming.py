"""Measure the time and memory of training on a store that is larger than memory.

    python -m benchmarks.streaming size  [--rows 10000000] [--memory 1] [--epoch]
    python -m benchmarks.streaming loss --store train.zarr [--manifest train.csv]
    python -m benchmarks.streaming fits [--rows 300000]

`size` trains on a simulated store [rows, 1, 4, 192], whose shards are generated when they are read. It measures peak
memory and speed, also against training on the same batches from memory. An epoch of a 10-million-row store reads 31 GB.
`loss` trains on a store from memory, and streamed through the smallest buffer or a larger one, with three seeds each.
`fits` measures the peak of training from memory. Run each in a separate process, because peaks are per process.
"""

import math
import resource
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.train import Train
from pipeline.data.manifest import read_manifest
from pipeline.model.seed_model import SeedModel, prepare_pairs
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import StoreWriter
from pipeline.training.batches import (
    BatchSource,
    MemoryBatches,
    StreamedBatches,
    open_batches,
)
from pipeline.training.loop import compute_validation_loss, run_training
from pipeline.training.memory import GB, IN_MEMORY, find_least_memory, plan_memory
from pipeline.training.progress import PassProgress
from pipeline.training.train import hold_out, train

DIM, VIEWS, PER_SPEAKER = 192, 4, 100


@dataclass(frozen=True)
class Simulated(EmbeddingStore):
    """A store without files. The values of a shard depend only on its number."""

    shard: int = 1024

    @classmethod
    def of(cls, rows: int, shard: int = 1024) -> "Simulated":
        ids = tuple(f"id{row // PER_SPEAKER:06d}/{row:08d}" for row in range(rows))
        return cls(Path("simulated.zarr"), {"dim": DIM}, ids, np.full(rows, OK, dtype=np.uint8), shard)

    @property
    def shape(self) -> tuple[int, int, int, int]:  # type: ignore[override]
        return len(self.status), 1, VIEWS, DIM

    def shards(self) -> list[range]:
        rows = len(self.status)
        return [range(start, min(start + self.shard, rows)) for start in range(0, rows, self.shard)]

    def read_rows(self, rows: range) -> NDArray[np.float32]:
        rng = np.random.Generator(np.random.SFC64(rows.start))
        values = rng.standard_normal((len(rows), 1, VIEWS, DIM), dtype=np.float32)
        values[:, :, 0] += 2 * np.sin(np.arange(rows.start, rows.stop)[:, None, None] // PER_SPEAKER + np.arange(DIM))
        values[:, :, 1:] += values[:, :, :1]
        return values


class Lap:
    """Peak memory and time so far."""

    def __init__(self) -> None:
        self.started, self.memory = perf_counter(), peak()

    def say(self, what: str, note: str = "") -> None:
        taken = perf_counter() - self.started
        print(f"| {what} | {taken:.1f} | {peak() / GB:.2f} | {(peak() - self.memory) / GB:.2f} | {note} |", flush=True)


def peak() -> float:
    """Return the peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def head(*columns: str) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))


def shown(pace: PassProgress) -> None:
    if sys.stderr.isatty():
        print(f"\r{pace.done:,} of {pace.pairs:,}, {pace.rate:,.0f} pairs/s ", end="", file=sys.stderr)


class Only:
    """The first batches of a source, as an epoch."""

    def __init__(self, feed: BatchSource, count: int) -> None:
        self.pairs, self.validation, self.validated = feed.pairs, feed.validation[:1024], feed.validated
        self._feed, self._count = feed, count

    def epoch(self, rng: np.random.Generator) -> Generator[torch.Tensor, None, None]:
        with closing(self._feed.epoch(rng)) as batches:
            yield from islice(batches, self._count)


@click.group()
@click.option("--threads", default=1, show_default=True, help="Number of torch threads.")
def main(threads: int) -> None:
    """Measure training on stores that do not fit into memory."""
    torch.set_num_threads(threads)


def timed(model: SeedModel, feed: BatchSource, steps: int) -> tuple[float, float]:
    """Train for some steps. Return the seconds until the end of the first step, and the pairs per second after it."""
    times = [perf_counter()]
    part = Only(feed, steps)
    once = model.settings.model_copy(update={"max_epochs": 1})
    tell = lambda pace: times.append(perf_counter()) if pace.epoch else None  # noqa: E731
    run_training(model, part, once, 50, np.random.default_rng(1), "", None, tell)
    model.requires_grad_(True)  # a finished model does not require gradients
    return times[1] - times[0], (len(times) - 2) * model.settings.batch_size / (times[-1] - times[1])


@main.command()
@click.option("--rows", default=10_000_000, show_default=True, help="Number of utterances in the simulated store.")
@click.option("--memory", default=1.0, show_default=True, help="train.memory, in GB.")
@click.option("--steps", default=200, show_default=True, help="Number of batches of 256 to train on, three times.")
@click.option("--epoch", is_flag=True, help="Also read a whole epoch, without training on it.")
def size(rows: int, memory: float, steps: int, epoch: bool) -> None:
    """Train on a simulated store."""
    store = Simulated.of(rows)
    gigabytes = 4 * math.prod(store.shape) / GB
    print(f"{rows:,} utterances x 1 draw x {VIEWS} views x {DIM}: {gigabytes:.1f} GB; train.memory {memory:g} GB\n")
    head("", "s", "peak memory, GB", "growth, GB", "")
    pairs = torch.randn(2048, VIEWS, DIM)
    timed(SeedModel(DIM, Train()), MemoryBatches(pairs, pairs, Train(), 1), 8)
    lap = Lap()
    lap.say("start: torch, a network in training, and the ids of all utterances")
    settings = Train(memory=memory)
    rng = np.random.default_rng(0)
    held, what = hold_out(list(store.utterances), {}, settings.validation, rng)
    lap.say("hold-out", what)
    model = SeedModel(DIM, settings)
    feed = open_batches(store, held, model, rng, shown)
    assert isinstance(feed, StreamedBatches)
    lap.say("first pass: preconditioner and validation pairs", f"{rows / (perf_counter() - lap.started):,.0f} rows/s")
    filling, rate = timed(model, feed, steps)
    note = f"{steps} batches; {feed.plan.buffer:,} pairs buffered in {filling:.1f} s, {len(feed.validation):,} validate"
    lap.say("training", note)
    first, count = perf_counter(), 0
    if epoch:
        with closing(feed.epoch(rng)) as batches:
            for batch in batches:
                count += len(batch)
        assert count == feed.pairs
        lap.say("whole epoch, without training", f"{count:,} pairs, {count / (perf_counter() - first):,.0f} pairs/s")
    within = peak() - lap.memory <= memory * GB
    print(f"\nWithin the bound: {'yes' if within else 'NO'}\n")

    kept = torch.cat(list(Only(feed, steps).epoch(np.random.default_rng(1))))
    whole = MemoryBatches(kept, feed.validation, settings, 1)
    rates = np.array([[rate, timed(model, whole, steps)[1]]])
    for _ in range(2):  # in turn, so that load affects both
        rates = np.vstack([rates, [timed(model, feed, steps)[1], timed(model, whole, steps)[1]]])
    stream, ram = np.median(rates, axis=0)
    print(f"pairs/s: streamed {stream:,.0f}, from memory {ram:,.0f}, ratio {stream / ram:.2f}")
    print(f"each run, streamed and from memory: {rates.round().tolist()}")


def in_shards(path: Path, store: EmbeddingStore, shard: int) -> EmbeddingStore:
    """Copy a store into shards of `shard` rows."""
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    values = store.read()
    with closing(StoreWriter(path, store.utterances, store.shape[1:], attributes, shard)) as writer:
        for rows in writer.shards():
            part = slice(rows.start, rows.stop)
            writer.write(rows, values[part], store.status[part])
        writer.finish()
    return EmbeddingStore.open(path)


@main.command()
@click.option("--store", "path", type=click.Path(exists=True, path_type=Path), required=True, help="Training store.")
@click.option("--manifest", type=click.Path(exists=True, path_type=Path), help="Manifest of the store.")
@click.option("--epochs", default=20, show_default=True, help="Maximum number of epochs.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@click.option(
    "--times", default=1.0, show_default=True, help="Size of the streaming buffer, as a multiple of the smallest."
)
@click.option("--shard", default=8, show_default=True, help="Number of rows per shard in the copy to train on.")
def loss(path: Path, manifest: Path | None, epochs: int, seeds: int, times: float, shard: int) -> None:
    """Compare the validation losses of training from memory and streamed."""
    opened = EmbeddingStore.open(path)
    speakers = {row.utterance: row.speaker for row in read_manifest(manifest)} if manifest else {}
    with TemporaryDirectory() as folder:
        store = in_shards(Path(folder) / "small.zarr", opened, shard)
        whole = Train(max_epochs=epochs)
        little = whole.model_copy(update={"memory": (times * find_least_memory(store, whole) + 1) / GB})
        pairs, most = len(store.ok) * store.shape[1], plan_memory(store, 10**9, len(store.ok), little).buffer
        print(f"{path}: {pairs} pairs; streamed in shards of {shard} rows through a buffer of {most} pairs\n")
        head("seed", "from memory", "streamed", "difference", "held out when streamed")
        losses = []
        for seed in range(seeds):
            runs = [train(store, settings, seed, 50, speakers) for settings in (whole, little)]
            ids = [store.utterances[row] for row in store.ok]
            held, _ = hold_out(ids, speakers, whole.validation, np.random.default_rng(seed))
            values = store.read()[store.ok[held]].reshape(-1, *store.shape[2:])
            # On all held-out pairs, not only those that the training validated on.
            ram, stream = (
                compute_validation_loss(run.model, run.model.network, prepare_pairs(run.model, values), 50)
                for run in runs
            )
            losses.append((ram, stream))
            print(f"| {seed} | {ram:.4f} | {stream:.4f} | {stream - ram:+.4f} | {runs[1].held_out} |", flush=True)
    rams, streams = np.array(losses).T
    print(f"\nmeans {rams.mean():.4f} and {streams.mean():.4f}")
    print(f"spreads of the seeds {np.ptp(rams):.4f} and {np.ptp(streams):.4f}")


@main.command()
@click.option("--rows", default=300_000, show_default=True, help="Number of utterances in the simulated store.")
def fits(rows: int) -> None:
    """Measure the peak of training from memory."""
    store = Simulated.of(rows)
    gigabytes = 4 * math.prod(store.shape) / GB
    rng = np.random.default_rng(0)
    held, _ = hold_out(store.utterances, {}, 0.1, rng)
    before = peak()
    feed = open_batches(store, held, SeedModel(DIM, Train(memory=1.001 * IN_MEMORY * gigabytes)), rng)
    assert isinstance(feed, MemoryBatches)
    taken = (peak() - before) / GB
    print(f"store {gigabytes:.2f} GB, peak {taken:.2f} GB: {taken / gigabytes:.2f} of {IN_MEMORY} sizes of the store")


if __name__ == "__main__":
    main()
