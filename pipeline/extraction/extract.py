"""Stage one: manifest + encoder + recipe -> embedding store, shard by shard, with Dask."""

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
from pipeline.extraction.shard import ExtractionJob, ShardResult, encode_shard, list_warnings
from pipeline.store.schema import OK
from pipeline.store.writer import StoreWriter
from pipeline.utils.atomic import write_table
from pipeline.utils.paths import Place

Report = Callable[[ShardResult], None]
Runner = Callable[[ExtractionJob, Sequence[range], StoreWriter, Sequence[Place], Report], None]
"""A function that encodes shards, reusing rows of earlier stores, and reports each finished shard."""


@dataclass(frozen=True)
class ExtractionProgress:
    """Progress of an extraction, in utterances: `resumed` of an earlier run, `reused` of earlier stores."""

    rows: int
    resumed: int
    encoded: int
    reused: int
    failed: int
    seconds: float
    """Seconds of audio encoded in this run, over all draws and views."""

    @property
    def done(self) -> int:
        """Number of utterances that need no more work."""
        return self.resumed + self.encoded + self.reused + self.failed


@dataclass(frozen=True)
class ExtractionSummary:
    """Outcome of an extraction, in row order: `failures` are (utterance, path, reason).

    `warnings` are (utterance, path, warning): recordings that were read although their header or level cannot be right.
    """

    progress: ExtractionProgress
    failures: list[tuple[str, str, str]]
    warnings: list[tuple[str, str, str]]
    stale: list[Place]
    """Unfinished stores of other manifests, recipes or encoders in the journal."""
    damaged: int
    """Number of shards of an earlier run that were damaged and have been encoded again."""
    restarted: bool
    """True if the journal of an earlier run was damaged, or of another version; everything was encoded again."""


def store_attributes(job: ExtractionJob, manifest_sha256: str | None, augment_sha256: str | None) -> dict[str, Any]:
    """Return a store's attributes: everything that its values depend on, and nothing else (no dates, no hosts)."""
    encoder, recipe = job.encoder, job.recipe
    steps_by_view = {view.name: [step.model_dump(exclude_none=True) for step in view.steps] for view in recipe.views}
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
            "views": [{"name": name, "steps": steps} for name, steps in steps_by_view.items()],
            "draws": recipe.draws,
            "crop_samples": recipe.crop,
            "crops": "evenly spaced" if recipe.evaluation else "random",
        },
        "manifest_sha256": manifest_sha256,
        "augment_sha256": augment_sha256,
        # Absent by default, so that such stores keep the attributes that they always had.
        **({"denoise": job.denoiser.name} if job.denoiser else {}),
        **({"loud_audio": job.loud_audio} if job.loud_audio != "keep" else {}),
    }


def threaded_runner(workers: int) -> Runner:
    """Return a runner that encodes in this process, in `workers` threads; 0: in the thread of the caller.

    Torch, NumPy and soxr release the interpreter lock in their long computations. Each worker computes with the
    caller's number of torch threads. It should be 1 (`torch.set_num_threads(1)`), because more compete for the cores.
    """
    scheduler = {"scheduler": "threads", "num_workers": workers} if workers > 0 else {"scheduler": "synchronous"}
    lock = threading.Lock()

    def run(
        job: ExtractionJob, todo: Sequence[range], writer: StoreWriter, stores: Sequence[Place], done: Report
    ) -> None:
        earlier, share = EarlierStores(stores, writer.attributes), torch.get_num_threads()

        def one(rows: range) -> None:
            # A setting of each thread, which others may have changed; sums in another order change the last bits.
            torch.set_num_threads(share)
            result = encode_shard(job, rows, writer, earlier)
            with lock:
                done(result)

        compute(*(delayed(one, pure=False)(rows) for rows in todo), **scheduler)

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

    A journal beside `out` keeps finished shards, from which an interrupted run resumes. Rows of the same recording,
    recipe and encoder are copied from the store to be replaced and from `earlier` ones. An utterance that cannot be
    read is marked as failed and does not stop the others.

    The journal is named after `attributes`, see `store_attributes`. `shard` is the number of utterances in a shard, the
    unit of work. `progress` is called at the start and after each shard. `run` is `threaded_runner(0)` by default, or
    `cluster.distributed_runner`. `keep` also keeps the finished store in the journal, see `StoreWriter.finish`.

    Raises:
        ExtractionError: more than `max_failures` rows failed, or all. The journal keeps the others.
        OutputError: `out` exists and is not a store, or another process is writing it.
        CorpusError: sources that the recipe needs are missing or unreadable.
        PlaceError: the remote place of `out` does not answer, or refuses access. The journal keeps what it received.
    """
    check_sources(job.recipe, job.pool.sources, out)
    shape = (job.recipe.draws, len(job.recipe.views), job.encoder.dim)
    names = [row.utterance for row in job.manifest]
    with closing(StoreWriter(out, names, shape, attributes, shard, of_audio=True)) as writer:
        damaged, status = writer.verify(), writer.status()
        # Shards with failed rows are tried again: the files may have been repaired since.
        todo = [rows for rows in writer.shards() if (status[rows.start : rows.stop] != OK).any()]
        counter = _ProgressCounter(len(names), int((status == OK).sum()), progress or (lambda now: None))

        def done(result: ShardResult) -> None:
            writer.add_checksum(result.rows, result.checksum)
            counter.add(result)

        (run or threaded_runner(0))(job, todo, writer, [out, *earlier, *writer.unfinished_stores()], done)
        for rows in {*writer.shards()} - {*todo}:
            counter.warnings[rows.start] = list_warnings(job.manifest, rows, writer.read_traces(rows))
        failures, warnings = _in_order(counter.failures), _in_order(counter.warnings)
        for what, path, found in (("reason", failures_path(out), failures), ("warning", warnings_path(out), warnings)):
            listed = [[*map(escape_undecodable, line)] for line in found]
            write_table(path, ("utterance", "path", what), listed, writer.folder / path.name)
        if len(failures) > max_failures or len(failures) == len(job.manifest):
            name, _, reason = failures[0]
            limit = f", more than extract.max_failures = {max_failures}" if len(failures) > max_failures else ""
            raise ExtractionError(
                f"{len(failures)} of {len(job.manifest)} utterances failed{limit}. First: {name}: {reason} All are"
                f" listed in {failures_path(out)}; repair or remove them{', or raise the limit' if limit else ''}."
            )
        writer.finish(keep)
        return ExtractionSummary(counter.now, failures, warnings, writer.unfinished_stores(), damaged, writer.restarted)


class _ProgressCounter:
    """Sums up the results of shards, which arrive in any order."""

    def __init__(self, rows: int, resumed: int, report: Callable[[ExtractionProgress], None]) -> None:
        self.now, self._report = ExtractionProgress(rows, resumed, 0, 0, 0, 0.0), report
        self.failures: dict[int, list[tuple[str, str, str]]] = {}
        """Failures by the first row of their shard."""
        self.warnings: dict[int, list[tuple[str, str, str]]] = {}
        report(self.now)

    def add(self, shard: ShardResult) -> None:
        encoded, reused = self.now.encoded + shard.encoded, self.now.reused + shard.reused
        failed, seconds = self.now.failed + len(shard.failures), self.now.seconds + shard.seconds
        self.now = replace(self.now, encoded=encoded, reused=reused, failed=failed, seconds=seconds)
        self.failures[shard.rows.start], self.warnings[shard.rows.start] = shard.failures, shard.warnings
        self._report(self.now)


def _in_order(by_shard: Mapping[int, list[tuple[str, str, str]]]) -> list[tuple[str, str, str]]:
    """Return the lines of all shards in row order."""
    return [line for start in sorted(by_shard) for line in by_shard[start]]


def failures_path(store: Place) -> Place:
    """Return the path of the list of a store's failed rows: `<name>.failures.csv` beside it."""
    return store.with_name(f"{store.stem}.failures.csv")


def warnings_path(store: Place) -> Place:
    """Return the path of the list of a store's rows with warnings: `<name>.warnings.csv` beside it."""
    return store.with_name(f"{store.stem}.warnings.csv")
