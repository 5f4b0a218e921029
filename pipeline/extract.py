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
from pipeline.augment.sources import Source, SourcePool
from pipeline.encoders.encoder import Encoder
from pipeline.errors import AudioError, ExtractionError
from pipeline.files import replacing, sha256_of
from pipeline.manifest import Utterance
from pipeline.store import FAILED, MISSING, OK, StoreWriter

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
class Summary:
    """What an extraction did; `failures` are (utterance, path, reason) in row order."""

    rows: int
    resumed: int
    failures: list[tuple[str, str, str]]
    seconds: float
    """Seconds of audio encoded in this run, over all draws and views."""


def store_attributes(
    encoder: Encoder,
    recipe: Recipe,
    seed: int,
    manifest_sha256: str | None,
    augment_sha256: str | None,
) -> dict[str, Any]:
    """Return a store's attributes: everything its values depend on, and nothing else (no dates, no hosts)."""
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
        "seed": seed,
        "recipe": {
            "views": views,
            "draws": recipe.draws,
            "crop_samples": recipe.crop,
            "crops": "evenly spaced" if recipe.evaluation else "random",
        },
        "manifest_sha256": manifest_sha256,
        "augment_sha256": augment_sha256,
    }


def extract(
    manifest: Sequence[Utterance],
    root: Path,
    recipe: Recipe,
    sources: Mapping[str, Sequence[Source]],
    encoder: Encoder,
    out: Path,
    attributes: Mapping[str, Any],
    seed: int = 0,
    shard: int = 64,
    workers: int = 0,
    max_failures: int = 0,
    short_audio: ShortAudio = "wrap",
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Encode every view of every utterance into the store `out`, and list the failures beside it.

    Finished shards wait in a journal beside `out`; a run that was killed goes on from there. An utterance that cannot
    be read is marked as failed and does not stop the others.

    Args:
        manifest: the utterances, in row order.
        root: folder the manifest's paths are relative to.
        recipe: views, draws and crop.
        sources: noise, music, rooms and talkers by kind.
        encoder: a frozen encoder.
        out: the store's final place.
        attributes: see `store_attributes`; they key the journal.
        seed: of crops and corruption.
        shard: utterances in a shard, the unit of work.
        workers: threads that encode shards side by side; 0 encodes in this one. Give torch one thread of its own for
            each (`torch.set_num_threads(1)`): more would fight over the cores.
        max_failures: rows that may fail before the whole extraction counts as failed.
        short_audio: what becomes of an utterance too short for the encoder: it is repeated, or marked as failed.
        progress: called with the number of utterances done, at the start (resumed ones) and shard by shard.

    Raises:
        ExtractionError: more than `max_failures` rows failed, or all. The journal keeps the others.
        OutputError: something that is no store is at `out`, or another process is writing it.
        CorpusError: the recipe needs sources that are not there, or one of them is unreadable.
    """
    check_sources(recipe, sources, out)
    shape = (recipe.draws, len(recipe.views), encoder.dim)
    job = Job(manifest, root, recipe, SourcePool(sources), encoder, seed, short_audio)
    names = [row.utterance for row in manifest]
    with closing(StoreWriter(out, names, shape, attributes, shard, traced=True)) as writer:
        status = writer.status()
        # A shard with failed rows is tried again: the files may have been mended meanwhile.
        todo = [rows for rows in writer.shards() if (status[rows.start : rows.stop] != OK).any()]
        resumed = len(manifest) - sum(map(len, todo))
        if progress:
            progress(resumed)
        lock = threading.Lock()

        def run(rows: range) -> tuple[list[tuple[str, str, str]], float]:
            result = _encode_shard(job, rows, writer)
            if progress:
                with lock:
                    progress(len(rows))
            return result

        # In whatever order Dask takes them: every shard has its own place, and nothing depends on its neighbours.
        tasks = [delayed(run, pure=False)(rows) for rows in todo]
        # Threads, since torch, NumPy and soxr let go of the interpreter where the time goes.
        scheduler = {"scheduler": "threads", "num_workers": workers} if workers > 0 else {"scheduler": "synchronous"}
        results = compute(*tasks, **scheduler)
        failures = [failure for failed, _ in results for failure in failed]
        _write_failures(failures_path(out), failures)
        if len(failures) > max_failures or len(failures) == len(manifest):
            name, _, reason = failures[0]
            limit = f", more than extract.max_failures = {max_failures}" if len(failures) > max_failures else ""
            raise ExtractionError(
                f"{len(failures)} of {len(manifest)} utterances failed{limit}. First: {name}: {reason} All are in"
                f" {failures_path(out)}; mend or remove them{', or raise the limit' if limit else ''}."
            )
        writer.finish()
        return Summary(len(manifest), resumed, failures, sum(seconds for _, seconds in results))


def failures_path(store: Path) -> Path:
    """Return where the failed rows of a store are listed: `<name>.failures.csv` beside it."""
    return store.with_name(f"{store.stem}.failures.csv")


def _encode_shard(job: Job, rows: range, writer: StoreWriter) -> tuple[list[tuple[str, str, str]], float]:
    """Encode and write one whole shard; return its failures and the seconds of audio encoded."""
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
                if utterance.sha256 not in (None, sha256_of(path)):
                    raise AudioError(f"{path}: has changed since the manifest was made. Make the manifest again.")
                if job.short_audio == "fail" and len(wave) < job.encoder.min_samples:
                    raise AudioError(
                        f"{path}: {len(wave)} samples, encoder {job.encoder.name} needs {job.encoder.min_samples}"
                        " (at 16 kHz). Leave it out, or set extract.short_audio to wrap."
                    )
            except AudioError as error:
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
    return failures, seconds


def _write_failures(path: Path, failures: Sequence[tuple[str, str, str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("utterance", "path", "reason"))
        writer.writerows(failures)
