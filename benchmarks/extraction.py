"""Measure whether the encoder is the bottleneck of extraction.

    python -m benchmarks.extraction         (speed, augment and memory)
    python -m benchmarks.extraction speed   [--encoder ge2e --encoder campplus] [--workers 2]
    python -m benchmarks.extraction augment [--tracks 240]
    python -m benchmarks.extraction memory  [--rows 1000 --rows 10000]
    python -m benchmarks.extraction lists   [--rows 500000]
    python -m benchmarks.extraction tasks   [--count 5000]

`speed` compares a whole extraction (reading, corrupting, encoding, writing) of four views with a bare loop that encodes
the same crops from memory, on the same cores. The bare loop is the faster of one loop with several torch threads, and
several loops with one thread each. `augment` measures the CPU's work alone: the number of 2-second crops that one
thread reads and corrupts per second, with sources that fit in the cache, and with tracks of music that do not. `memory`
is the peak memory of `seed extract` in separate processes, `lists` the time and memory for reading a manifest, and
`tasks` the number of empty shards that a Dask scheduler hands out per second. The first two run on generated audio, or
on your own set: --manifest, --augment, --root.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from time import perf_counter

import click
import numpy as np
import soundfile
import torch

from pipeline.audio.augment.recipe import make_views
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.reading import SAMPLE_RATE, read_audio
from pipeline.config.params import Params
from pipeline.data.manifest import Utterance, write_augment, write_manifest
from pipeline.extraction.cluster import RemoteJob, connect_dask
from pipeline.extraction.extract import extract, store_attributes, threaded_runner
from pipeline.extraction.shard import ExtractionJob
from pipeline.utils.atomic import sha256_of


def sound(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise with varying loudness and colour, like speech and music."""
    steps = np.repeat(rng.uniform(0.02, 0.3, int(seconds * 8) + 1), SAMPLE_RATE // 8)[: int(seconds * SAMPLE_RATE)]
    noise = rng.standard_normal(len(steps))
    return np.asarray(np.clip(0.2 * steps * (noise + np.roll(noise, 1)), -1, 1), dtype=np.float32)


def generate(folder: Path, rows: int, track: float = 60.0, tracks: int = 8) -> None:
    """Write utterances of 3 to 6 seconds, noise, tracks of music, talkers and rooms, and their lists."""
    rng = np.random.default_rng(0)
    made: dict[str, list[Path]] = {kind: [] for kind in ("speech", "noise", "music", "babble", "rooms")}
    lengths = {"noise": (40, 5.0), "music": (tracks, track), "babble": (20, 5.0), "rooms": (40, 0.5)}
    for kind, (number, seconds) in {"speech": (min(rows, 200), 0.0), **lengths}.items():
        (folder / kind).mkdir(parents=True)
        for index in range(number):
            wave = sound(seconds or rng.uniform(3, 6), rng)
            if kind == "rooms":
                wave *= np.exp(-np.arange(len(wave)) / 1_600)
                wave[20] = 1
            path = folder / kind / f"{index}.flac"
            soundfile.write(path, wave, SAMPLE_RATE)
            made[kind].append(path.relative_to(folder))
    digests = {path: sha256_of(folder / path) for paths in made.values() for path in paths}
    # A few files, each listed many times: lists can grow without filling the disk.
    files = (made["speech"][index % len(made["speech"])] for index in count())
    manifest = [
        Utterance(f"u{row}", str(path), f"s{row % 50}", None, digests[path])
        for row, path in zip(range(rows), files, strict=False)
    ]
    sources = [
        {"kind": kind, "path": str(path), "sha256": digests[path]}
        | ({"speaker": path.stem} if kind == "babble" else {})
        for kind in lengths
        for path in made[kind]
    ]
    write_manifest(folder / "manifest.csv", manifest)
    write_augment(folder / "augment.csv", sources)


@contextmanager
def place(manifest: Path | None, augment: Path | None, root: Path, rows: int) -> Iterator[tuple[Path, Path, Path]]:
    """Yield the lists and the audio root: the given ones, or generated ones."""
    if manifest and augment:
        yield manifest, augment, root
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), rows)
        yield Path(folder, "manifest.csv"), Path(folder, "augment.csv"), Path(folder)


def crops_of(job: ExtractionJob, rows: int) -> list[list[torch.Tensor]]:
    """Return the crops of the first utterances, over draws and views."""
    made = []
    for row in job.manifest[:rows]:
        path = job.root / row.path
        views = make_views(job.recipe, read_audio(path), job.seed, row.utterance, job.pool, row.speaker, path)
        made.append([torch.from_numpy(view.wave) for draw in views for view in draw])
    return made


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def loops(job: ExtractionJob, crops: list[list[torch.Tensor]], workers: int) -> dict[str, Callable[[], object]]:
    """Return the bare loops over crops in memory to compare an extraction with."""

    def one() -> None:
        torch.set_num_threads(workers)
        for each in crops:
            job.encoder(each)
        torch.set_num_threads(1)

    def several() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(job.encoder, crops))

    return {f"one loop, {workers} torch threads": one, f"{workers} loops, 1 torch thread each": several}


shared = [
    click.option("--manifest", type=click.Path(path_type=Path, exists=True), help="Manifest of your own utterances."),
    click.option("--augment", type=click.Path(path_type=Path, exists=True), help="Augmentation list of --manifest."),
    click.option(
        "--root",
        type=click.Path(path_type=Path, exists=True),
        default=".",
        help="Folder that their paths are relative to.",
    ),
]


def with_lists(command: Callable[..., None]) -> Callable[..., None]:
    for option in shared:
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure extraction. Without a command: speed, augment and memory, one after another."""
    if context.invoked_subcommand is None:
        # In separate processes: on Linux, the peak of a process is at least that of its parent.
        for command in ("speed", "augment", "memory"):
            subprocess.run([sys.executable, "-m", "benchmarks.extraction", command], check=True)
            print(flush=True)


@main.command()
@click.option("--encoder", "encoders", multiple=True, default=("ge2e", "campplus"), show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Number of cores.")
@click.option("--rows", default=96, show_default=True, help="Number of utterances, each with 4 draws x 4 views.")
@click.option("--repeats", default=3, show_default=True)
@with_lists
def speed(
    encoders: tuple[str, ...],
    workers: int,
    rows: int,
    repeats: int,
    manifest: Path | None,
    augment: Path | None,
    root: Path,
) -> None:
    """Measure whole extractions against a bare loop over crops in memory."""
    print("| encoder | extraction, crops/s | bare loop, crops/s | which | ratio |")
    print("|---|---:|---:|---|---:|")
    with place(manifest, augment, root, rows) as (listed, sources, where):
        for name in encoders:
            spec = RemoteJob(listed, sources, where, "train", name, None, Params().model_dump_json())
            job = spec.load()
            job = replace(job, manifest=job.manifest[:rows], prefetch=Params().extract.prefetch)
            crops = crops_of(job, rows)
            number = sum(map(len, crops))
            times: dict[str, list[float]] = {}
            for _ in range(repeats):  # in turn, so that load affects all of them
                for what, loop in loops(job, crops, workers).items():
                    times.setdefault(what, []).append(timed(loop))
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder, "train.zarr")
                    # A cold cache of sources, as in a new run.
                    fresh = replace(job, pool=SourcePool(job.pool.sources))
                    made = store_attributes(job, None, None), 16
                    whole = lambda: extract(fresh, out, *made, run=threaded_runner(workers))  # noqa: B023, E731
                    times.setdefault("whole", []).append(timed(whole))
            rates = {what: number / statistics.median(taken) for what, taken in times.items()}
            extraction = rates.pop("whole")
            best = max(rates, key=lambda what: rates[what])
            print(
                f"| {name} | {extraction:.1f} | {rates[best]:.1f} | {best} | {extraction / rates[best]:.2f} |",
                flush=True,
            )


@main.command()
@click.option(
    "--tracks", default=240, show_default=True, help="Number of 4-minute tracks of music, more than fit in the cache."
)
@click.option("--rows", default=100, show_default=True, help="Number of utterances, each with 4 draws x 4 views.")
@with_lists
def augment(tracks: int, rows: int, manifest: Path | None, augment: Path | None, root: Path) -> None:
    """Measure the crops per second that one core reads and corrupts, without an encoder."""
    params = Params()
    print("| sources | crops/s on one core |")
    print("|---|---:|")
    with place(manifest, augment, root, rows) as lists:
        spec = RemoteJob(*lists, "train", "ge2e", None, params.model_dump_json())
        job = spec.load()
        for what in ("read for the first time", "in the cache"):
            print(f"| {what} | {rows * 16 / timed(lambda: crops_of(job, rows)):.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), rows, 240.0, tracks)
        spec = RemoteJob(
            Path(folder, "manifest.csv"),
            Path(folder, "augment.csv"),
            Path(folder),
            "train",
            "ge2e",
            None,
            params.model_dump_json(),
        )
        job = spec.load()
        full = replace(job, pool=SourcePool(job.pool.sources, cache_seconds=60.0))
        crops_of(full, 10)
        what = f"{tracks} tracks of 4 minutes, cache full"
        print(f"| {what} | {rows * 16 / timed(lambda: crops_of(full, rows)):.0f} |", flush=True)


@main.command()
@click.option("--rows", "sizes", multiple=True, type=int, default=(1_000, 10_000), show_default=True)
def memory(sizes: tuple[int, ...]) -> None:
    """Measure the peak memory of `seed extract` (GE2E, one draw of four views) by the number of utterances."""
    print("| utterances | peak, MB |")
    print("|---:|---:|")
    peaks = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), rows)
            command = [sys.executable, "-m", "stages.cli", "extract", "--manifest", "manifest.csv", "--augment"]
            command += ["augment.csv", "--encoder", "ge2e", "--set", "train", "--draws", "1", "--frames", "100"]
            process = subprocess.Popen([*command, "--out", "train.zarr"], cwd=folder, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise click.ClickException("the extraction failed")
        scale = 1 if sys.platform == "darwin" else 1024
        peaks.append(used.ru_maxrss * scale / 1e6)
        print(f"| {rows:,} | {peaks[-1]:.0f} |", flush=True)
    print(f"largest to smallest: {max(peaks) / min(peaks):.3f}")


@main.command()
@click.option("--rows", default=500_000, show_default=True)
def lists(rows: int) -> None:
    """Measure the time and memory for reading a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest.csv")
        names = (f"id{row // 400:05d}/video{row // 40:06d}/{row % 40:05d}.flac" for row in range(rows))
        write_manifest(
            path,
            [Utterance(name, f"audio/{name}", name[:7], 8.25, sha256(name.encode()).hexdigest()) for name in names],
        )
        size = path.stat().st_size
        code = (
            "import sys, time; from pathlib import Path; import psutil\n"
            "from pipeline.data.manifest import read_manifest\n"
            "held = psutil.Process().memory_info\n"
            "before, started = held().rss, time.perf_counter(); rows = read_manifest(Path(sys.argv[1]))\n"
            "print(time.perf_counter() - started, (held().rss - before) / len(rows))"
        )
        told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    seconds, each = map(float, told.stdout.split())
    print(f"{rows:,} rows of {size / rows:.0f} bytes: {rows / seconds:,.0f} rows/s, {each:.0f} bytes of memory per row")


@main.command()
@click.option("--count", default=5_000, show_default=True)
def tasks(count: int) -> None:
    """Measure the shards per second that a Dask scheduler hands out to two processes."""
    with connect_dask("processes", 2) as client:
        client.gather(client.map(abs, range(100), pure=False))
        took = timed(lambda: client.gather(client.map(abs, range(count), pure=False)))
    print(f"{count / took:,.0f} tasks/s")


if __name__ == "__main__":
    main()
