"""Stage one: manifest + encoder + recipe -> embedding store, shard by shard, on Dask."""

import csv
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from dask.base import compute
from dask.delayed import delayed

from pipeline import revisions
from pipeline.audio.augment.recipe import check_sources
from pipeline.data.manifest import escape_undecodable
from pipeline.errors import ExtractionError
from pipeline.extraction.reuse import EarlierStores
from pipeline.extraction.shard import ExtractionJob, ShardResult, encode_shard
from pipeline.store.schema import OK
from pipeline.store.writer import StoreWriter
from pipeline.utils.atomic import replacing
from pipeline.utils.paths import Place

Runner = Callable[[ExtractionJob, Sequence[range], StoreWriter, Sequence[Place], Callable[[ShardResult], None]], None]
"""Encodes shards, but for what earlier stores hold, and tells of each as it is done."""


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction is, in utterances of its `rows`: `resumed` had been encoded before it began."""

    rows: int
    resumed: int
    encoded: int
    reused: int
    """Taken out of earlier stores."""
    failed: int
    seconds: float
    """Seconds of audio encoded in this run, over all draws and views."""

    @property
    def done(self) -> int:
        """Return how many need nothing more."""
        return self.resumed + self.encoded + self.reused + self.failed


@dataclass(frozen=True)
class ExtractionSummary:
    """What an extraction did; `failures` are (utterance, path, reason) in row order."""

    progress: ExtractionProgress
    failures: list[tuple[str, str, str]]
    stale: list[Place]
    """Unfinished stores of other manifests, recipes or encoders that wait in the journal."""


def store_attributes(job: ExtractionJob, manifest_sha256: str | None, augment_sha256: str | None) -> dict[str, Any]:
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
        "revision": revisions.EXTRACT,
        "encoder": encoder.name,
        "family": encoder.family,
        "weights_sha256": encoder.weights_sha256,
        "front_end": encoder.front_end,
        "precision": encoder.precision,
        "dim": encoder.dim,
        "sample_rate": encoder.sample_rate,
        "seed": job.seed,
        "short_audio": job.short_audio,
        "batch": job.batch,
        "recipe": {
            "views": views,
            "draws": recipe.draws,
            "crop_samples": recipe.crop,
            "crops": "evenly spaced" if recipe.evaluation else "random",
        },
        "manifest_sha256": manifest_sha256,
        "augment_sha256": augment_sha256,
        # Only where there is one, so that stores without are what they always were.
        **({"denoise": job.denoiser.name} if job.denoiser else {}),
    }


def threaded_runner(workers: int) -> Runner:
    """Return a runner that encodes in this process: shards side by side in `workers` threads, 0 one after the other.

    Torch, NumPy and soxr let go of the interpreter where the time goes. Each computes with as many threads as the
    caller; let that be one (`torch.set_num_threads(1)`), since more would fight over the cores.
    """
    how = {"scheduler": "threads", "num_workers": workers} if workers > 0 else {"scheduler": "synchronous"}
    lock = threading.Lock()

    def run(
        job: ExtractionJob,
        todo: Sequence[range],
        writer: StoreWriter,
        stores: Sequence[Place],
        done: Callable[[ShardResult], None],
    ) -> None:
        earlier, share = EarlierStores(stores, writer.attributes), torch.get_num_threads()

        def one(rows: range) -> None:
            # A setting of each thread, which others may have changed; sums in another order show in the last bits.
            torch.set_num_threads(share)
            result = encode_shard(job, rows, writer, earlier)
            with lock:
                done(result)

        compute(*(delayed(one, pure=False)(rows) for rows in todo), **how)

    return run


def extract(
    job: ExtractionJob,
    out: Place,
    attributes: Mapping[str, Any],
    shard: int = 64,
    max_failures: int = 0,
    progress: Callable[[ExtractionProgress], None] | None = None,
    run: Runner | None = None,
    earlier: Sequence[Place] = (),
    keep: bool = False,
) -> ExtractionSummary:
    """Encode every view of every utterance into the store `out`, and list the failures beside it.

    Finished shards wait in a journal beside `out`; a run that was killed goes on from there. Rows that the store to be
    replaced, or another one, holds of the same recording, recipe and encoder are taken from there. An utterance that
    cannot be read is marked as failed and does not stop the others.

    Args:
        job: what to encode, and how.
        out: the store's final place.
        attributes: see `store_attributes`; they key the journal.
        shard: utterances in a shard, the unit of work.
        max_failures: rows that may fail before the whole extraction counts as failed.
        progress: told how far it is, at the start and shard by shard.
        run: where the shards are encoded: `threads` (one by one if not given) or `cluster.remote`.
        earlier: more stores whose rows may be used; those in `out` and its journal are anyway.
        keep: whether the journal keeps the finished store as well, see `StoreWriter.finish`.

    Raises:
        ExtractionError: more than `max_failures` rows failed, or all. The journal keeps the others.
        OutputError: something that is no store is at `out`, or another process is writing it.
        CorpusError: the recipe needs sources that are not there, or one of them is unreadable.
        PlaceError: `out` is a remote place that does not answer, or refuses. The journal keeps what it took.
    """
    check_sources(job.recipe, job.pool.sources, out)
    shape = (job.recipe.draws, len(job.recipe.views), job.encoder.dim)
    names = [row.utterance for row in job.manifest]
    with closing(StoreWriter(out, names, shape, attributes, shard, of_audio=True)) as writer:
        status = writer.status()
        # A shard with failed rows is tried again: the files may have been mended meanwhile.
        todo = [rows for rows in writer.shards() if (status[rows.start : rows.stop] != OK).any()]
        tally = _ProgressCounter(len(names), int((status == OK).sum()), progress or (lambda now: None))
        # In whatever order: every shard has its own place, and nothing depends on its neighbours.
        (run or threaded_runner(0))(job, todo, writer, [out, *earlier, *writer.stale()], tally.add)
        failures = tally.failures()
        _write_failures(failures_path(out), failures, writer.folder / "failures.csv")
        if len(failures) > max_failures or len(failures) == len(job.manifest):
            name, _, reason = failures[0]
            limit = f", more than extract.max_failures = {max_failures}" if len(failures) > max_failures else ""
            raise ExtractionError(
                f"{len(failures)} of {len(job.manifest)} utterances failed{limit}. First: {name}: {reason} All are in"
                f" {failures_path(out)}; mend or remove them{', or raise the limit' if limit else ''}."
            )
        writer.finish(keep)
        return ExtractionSummary(tally.now, failures, writer.stale())


class _ProgressCounter:
    """Adds up what becomes of the shards, in whatever order they are done."""

    def __init__(self, rows: int, resumed: int, tell: Callable[[ExtractionProgress], None]) -> None:
        self.now, self._tell = ExtractionProgress(rows, resumed, 0, 0, 0, 0.0), tell
        self._failures: dict[int, list[tuple[str, str, str]]] = {}
        tell(self.now)

    def add(self, shard: ShardResult) -> None:
        now = self.now
        self.now = replace(
            now,
            encoded=now.encoded + shard.encoded,
            reused=now.reused + shard.reused,
            failed=now.failed + len(shard.failures),
            seconds=now.seconds + shard.seconds,
        )
        self._failures[shard.rows.start] = shard.failures
        self._tell(self.now)

    def failures(self) -> list[tuple[str, str, str]]:
        """Return the failures in row order."""
        return [failure for start in sorted(self._failures) for failure in self._failures[start]]


def failures_path(store: Place) -> Place:
    """Return where the failed rows of a store are listed: `<name>.failures.csv` beside it."""
    return store.with_name(f"{store.stem}.failures.csv")


def _write_failures(path: Place, failures: Sequence[tuple[str, str, str]], by: Place) -> None:
    with replacing(path, by) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("utterance", "path", "reason"))
        writer.writerows([map(escape_undecodable, failure) for failure in failures])
