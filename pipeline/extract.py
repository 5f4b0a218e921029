"""Stage one: manifest + encoder + recipe -> embedding store, shard by shard, on Dask."""

import csv
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from pipeline.audio import SAMPLE_RATE, read_audio
from pipeline.augment.corrupt import dump_trace
from pipeline.augment.recipe import Recipe, check_sources, make_views
from pipeline.augment.sources import SourcePool
from pipeline.encoders.encoder import Encoder
from pipeline.errors import AudioError, ExtractionError
from pipeline.files import replacing, sha256_of
from pipeline.journal import ShardWriter, StoreWriter
from pipeline.manifest import Utterance, legible
from pipeline.store import FAILED, MISSING, OK

REVISION = 1
"""Raise it when the same audio, weights and recipe give other embeddings: stored ones are then made anew."""

ShortAudio = Literal["wrap", "fail"]

BATCH = 8
"""Utterances encoded together; fixed, since the composition of a batch can show in the last bits."""


@dataclass(frozen=True)
class Job:
    """All that a shard's encoding depends on."""

    manifest: Sequence[Utterance]
    root: Path
    recipe: Recipe
    pool: SourcePool
    encoder: Encoder
    seed: int
    short_audio: ShortAudio


@dataclass(frozen=True)
class Shard:
    """What became of a shard; `failures` are (utterance, path, reason) in row order."""

    rows: range
    failures: list[tuple[str, str, str]]
    seconds: float
    """Seconds of audio encoded, over all draws and views."""


Runner = Callable[[Job, Sequence[range], StoreWriter, Callable[[Shard], None]], list[Shard]]
"""Encodes shards and tells of each as it is done."""


@dataclass(frozen=True)
class Summary:
    """What an extraction did; `failures` are (utterance, path, reason) in row order."""

    rows: int
    resumed: int
    failures: list[tuple[str, str, str]]
    seconds: float
    """Seconds of audio encoded in this run, over all draws and views."""


def store_attributes(job: Job, manifest_sha256: str | None, augment_sha256: str | None) -> dict[str, Any]:
    """Return a store's attributes: everything its values depend on, and nothing else (no dates, no hosts)."""
    encoder, recipe = job.encoder, job.recipe
    views = [
        {
            "name": view.name,
            "steps": [step.model_dump(exclude_none=True) for step in view.steps],
        }
        for view in recipe.views
    ]
    return {
        "revision": REVISION,
        "encoder": encoder.name,
        "family": encoder.family,
        "weights_sha256": encoder.weights_sha256,
        "front_end": encoder.front_end,
        "precision": encoder.precision,
        "dim": encoder.dim,
        "sample_rate": encoder.sample_rate,
        "seed": job.seed,
        "short_audio": job.short_audio,
        "recipe": {
            "views": views,
            "draws": recipe.draws,
            "crop_samples": recipe.crop,
            "crops": "evenly spaced" if recipe.evaluation else "random",
        },
        "manifest_sha256": manifest_sha256,
        "augment_sha256": augment_sha256,
    }


def threads(workers: int) -> Runner:
    """Return a runner that encodes in this process: shards side by side in `workers` threads, 0 one after the other.

    Torch, NumPy and soxr let go of the interpreter where the time goes. Give torch one thread of its own for each
    (`torch.set_num_threads(1)`): more would fight over the cores.
    """
    how = {"scheduler": "threads", "num_workers": workers} if workers > 0 else {"scheduler": "synchronous"}
    lock = threading.Lock()

    def run(job: Job, todo: Sequence[range], writer: StoreWriter, done: Callable[[Shard], None]) -> list[Shard]:
        def one(rows: range) -> Shard:
            result = encode_shard(job, rows, writer)
            with lock:
                done(result)
            return result

        return list(compute(*(delayed(one, pure=False)(rows) for rows in todo), **how))

    return run


def extract(
    job: Job,
    out: Path,
    attributes: Mapping[str, Any],
    shard: int = 64,
    max_failures: int = 0,
    progress: Callable[[int], None] | None = None,
    run: Runner | None = None,
) -> Summary:
    """Encode every view of every utterance into the store `out`, and list the failures beside it.

    Finished shards wait in a journal beside `out`; a run that was killed goes on from there. An utterance that cannot
    be read is marked as failed and does not stop the others.

    Args:
        job: what to encode, and how.
        out: the store's final place.
        attributes: see `store_attributes`; they key the journal.
        shard: utterances in a shard, the unit of work.
        max_failures: rows that may fail before the whole extraction counts as failed.
        progress: called with the number of utterances done, at the start (resumed ones) and shard by shard.
        run: where the shards are encoded: `threads` (one by one if not given) or `cluster.remote`.

    Raises:
        ExtractionError: more than `max_failures` rows failed, or all. The journal keeps the others.
        OutputError: something that is no store is at `out`, or another process is writing it.
        CorpusError: the recipe needs sources that are not there, or one of them is unreadable.
    """
    check_sources(job.recipe, job.pool.sources, out)
    shape = (job.recipe.draws, len(job.recipe.views), job.encoder.dim)
    report = progress or (lambda count: None)
    names = [row.utterance for row in job.manifest]
    with closing(StoreWriter(out, names, shape, attributes, shard, traced=True)) as writer:
        status = writer.status()
        # A shard with failed rows is tried again: the files may have been mended meanwhile.
        todo = [rows for rows in writer.shards() if (status[rows.start : rows.stop] != OK).any()]
        resumed = len(job.manifest) - sum(map(len, todo))
        report(resumed)
        # In whatever order: every shard has its own place, and nothing depends on its neighbours.
        done = (run or threads(0))(job, todo, writer, lambda result: report(len(result.rows)))
        failures = [failure for result in sorted(done, key=lambda each: each.rows.start) for failure in result.failures]
        _write_failures(failures_path(out), failures, writer.folder / "failures.csv")
        if len(failures) > max_failures or len(failures) == len(job.manifest):
            name, _, reason = failures[0]
            limit = f", more than extract.max_failures = {max_failures}" if len(failures) > max_failures else ""
            raise ExtractionError(
                f"{len(failures)} of {len(job.manifest)} utterances failed{limit}. First: {name}: {reason} All are in"
                f" {failures_path(out)}; mend or remove them{', or raise the limit' if limit else ''}."
            )
        writer.finish()
        return Summary(len(job.manifest), resumed, failures, sum(result.seconds for result in done))


def failures_path(store: Path) -> Path:
    """Return where the failed rows of a store are listed: `<name>.failures.csv` beside it."""
    return store.with_name(f"{store.stem}.failures.csv")


def encode_shard(job: Job, rows: range, writer: ShardWriter) -> Shard:
    """Encode and write one whole shard. It is all the same how often, and in which process."""
    shape = (len(rows), job.recipe.draws, len(job.recipe.views), job.encoder.dim)
    values: NDArray[np.float32] = np.full(shape, np.nan, dtype=np.float32)
    status: NDArray[np.uint8] = np.full(len(rows), MISSING, dtype=np.uint8)
    traces: NDArray[np.object_] = np.full(shape[:3], "", dtype=object)
    failures: list[tuple[str, str, str]] = []
    seconds = 0.0
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        waves, encoded = [], []
        for row in batch:
            utterance = job.manifest[row]
            path = job.root / utterance.path
            try:
                wave = read_audio(path)
                if utterance.sha256 is not None and utterance.sha256 != sha256_of(path):
                    raise AudioError(f"{path}: has changed since the manifest was made. Make the manifest again.")
                if job.short_audio == "fail" and len(wave) < job.encoder.min_samples:
                    raise AudioError(
                        f"{path}: {len(wave)} samples, encoder {job.encoder.name} needs {job.encoder.min_samples}"
                        " (at 16 kHz). Leave it out, or set extract.short_audio to wrap."
                    )
            except (AudioError, OSError) as error:  # the latter of a file that is gone or closed since it was read
                failures.append((utterance.utterance, utterance.path, str(error)))
                status[row - rows.start] = FAILED
                continue
            views = make_views(job.recipe, wave, job.seed, utterance.utterance, job.pool, utterance.speaker, path)
            waves += [torch.from_numpy(view.wave) for draw in views for view in draw]
            traces[row - rows.start] = [[dump_trace(view.trace) for view in draw] for draw in views]
            encoded.append(row - rows.start)
        if not encoded:
            continue
        embeddings = job.encoder(waves).numpy()
        seconds += sum(map(len, waves)) / SAMPLE_RATE
        values[encoded] = embeddings.reshape(len(encoded), *shape[1:])
        status[encoded] = OK
        for index in encoded:
            if not np.isfinite(values[index]).all():
                bad = job.manifest[rows[index]]
                failures.append((bad.utterance, bad.path, "the encoder returned NaN or infinite values."))
                values[index], status[index], traces[index] = np.nan, FAILED, ""
    writer.write(rows, values, status, traces)
    return Shard(rows, failures, seconds)


def _write_failures(path: Path, failures: Sequence[tuple[str, str, str]], by: Path) -> None:
    with replacing(path, by) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("utterance", "path", "reason"))
        writer.writerows([map(legible, failure) for failure in failures])
