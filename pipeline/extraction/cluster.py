"""Extraction on several processes or machines, through Dask's distributed scheduler.

Only paths, parameters and row numbers are sent. Each worker loads the manifest and the encoder once, and writes whole
shards into the journal, on a file system that all share or in a remote place. The store is byte for byte the one that a
single process writes.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import torch

from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.denoise import Denoise, load_denoiser
from pipeline.config.params import Params
from pipeline.config.recipes import recipe_for
from pipeline.data.manifest import hash_list, read_augment, read_manifest
from pipeline.encoders.registry import load_encoder
from pipeline.errors import ConfigError, ExtractionError, ManifestError, PlaceError
from pipeline.extraction.extract import Report, Runner
from pipeline.extraction.reuse import EarlierStores
from pipeline.extraction.shard import ExtractionJob, ShardResult, encode_shard
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import StoreWriter
from pipeline.utils.device import choose_device
from pipeline.utils.paths import Place

MAX_DEATHS = 10
"""Number of workers that may die on one shard before it is given up; the default of Dask is three."""

CONNECT_TIMEOUT = 10.0
"""How long to wait for a scheduler to answer, in seconds."""
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""The way to start worker processes: on Linux, forks of a server process that has imported torch once for all of them.

On other systems, libraries of the system may not work after a fork.
"""

_loading = threading.Lock()


@dataclass(frozen=True)
class RemoteJob:
    """An extraction in the form sent to workers: absolute paths and plain values."""

    manifest: Path
    augment: Path | None
    root: Path
    set_name: str
    encoder: str
    weights: str | None
    params: str
    """The parameters as JSON."""
    denoise: Denoise | None = None
    """The denoiser in place of the one in the encoder's entry."""
    lists_sha256: tuple[str | None, str | None] | None = None
    """SHA-256 of the manifest and of the augmentation list, which must not change until a worker has read them."""

    def load(self) -> ExtractionJob:
        """Read the lists and load the encoder.

        Raise SeedError if a list, the encoder or its weights are wrong, or a list has changed.
        """
        params = Params.model_validate_json(self.params)
        extract = params.extract
        torch.set_num_threads(1)  # the workers are the threads; sums in another order would change the last bits
        utterances = read_manifest(self.manifest)
        pool = SourcePool(read_augment(self.augment, self.root) if self.augment else {})
        lists = self.manifest, self.augment
        for path, expected, found in zip(lists, self.lists_sha256 or (), map(hash_list, lists), strict=False):
            if expected != found:
                raise ManifestError(f"{path}: has changed since the extraction began. Run the command again.")
        definition = params.definition(self.encoder, self.weights, self.denoise)
        denoiser = load_denoiser(definition.denoise)
        encoder = load_encoder(self.encoder, definition, choose_device(extract.device), extract.precision)
        recipe, options = recipe_for(params, self.set_name), (extract.short_audio, extract.batch, extract.prefetch)
        last = denoiser, extract.loud_audio
        return ExtractionJob(utterances, self.root, recipe, pool, encoder, params.seed, *options, *last)


@contextmanager
def connect_dask(scheduler: str, workers: int) -> Iterator[Any]:
    """Yield a `distributed.Client` for `workers` new processes on this machine, or for a scheduler elsewhere.

    `scheduler` is `processes`, or an address such as tcp://10.0.0.1:8786.

    Raises:
        ConfigError: the extra `cluster` is not installed.
        ExtractionError: no scheduler answers at the address, or a worker dies while it starts.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        needs = "needs distributed: pip install '.[cluster]' (docs/install.md)"
        raise ConfigError(f"extract.scheduler {scheduler!r} {needs}") from None
    if scheduler == "processes":
        with ExitStack() as stack:
            # Each worker has a nanny that restarts it. By default, Dask drops the nanny if the worker is not back 15 s
            # after its death, or dies again, and its work stops. A death counts against every shard assigned to the
            # worker, even if it has not begun.
            settings = {"deploy.lost-worker-timeout": "365 days", "scheduler.allowed-failures": MAX_DEATHS}
            settings |= {"worker.multiprocessing-method": START_METHOD}
            stack.enter_context(dask.config.set({f"distributed.{key}": value for key, value in settings.items()}))
            _preload_fork_server()
            runner = _start_uninterruptible_loop()
            stack.callback(runner.stop)
            try:
                cluster = LocalCluster(
                    n_workers=max(1, workers),
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    env=dict(os.environ),  # otherwise workers have the environment in which the fork server started
                    silence_logs="CRITICAL",  # errors are raised; the rest are messages of workers being stopped
                    loop=runner.loop,
                )
            except RuntimeError as error:
                raise ExtractionError(
                    f"a worker process died while it started ({error}). The usual reason is too little memory: lower"
                    " extract.workers, and run the command again. Finished shards are kept."
                ) from error
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            try:
                yield client
            except KeyboardInterrupt:
                stack.pop_all()  # closing would wait for running shards; the workers end with this process
                raise
        return
    try:
        client = Client(scheduler, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:
        raise ExtractionError(
            f"no Dask scheduler answers at {scheduler}: {' '.join(str(error).split())}. Start one with `dask"
            " scheduler`, or set extract.scheduler to threads."
        ) from error
    with client:
        yield client


def _preload_fork_server() -> None:
    """Make the fork server, if there will be one, import what workers need."""
    from distributed.utils import get_mp_context

    context = get_mp_context()  # first, because its first call sets a preload list of its own
    if START_METHOD == "forkserver":
        context.set_forkserver_preload([__name__, "distributed.nanny", "distributed.worker"])


def _start_uninterruptible_loop() -> Any:
    """Start an event loop whose worker processes ignore Ctrl-C, which goes to every process of a terminal.

    Each would print a traceback. Instead, they end with this process, however it ends.
    """
    from distributed.utils import LoopRunner

    # When a process is killed, Python's resource tracker removes what it left behind, with a warning.
    warnings = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (warnings, "ignore:resource_tracker")))
    resource_tracker.ensure_running()  # now, because its start unblocks signals
    del os.environ["PYTHONWARNINGS"]
    if warnings is not None:
        os.environ["PYTHONWARNINGS"] = warnings
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # threads and processes inherit this
    try:
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return runner


def distributed_runner(client: Any, spec: RemoteJob) -> Runner:
    """Return a runner that encodes on a client's workers, one task per shard.

    If workers declare a resource GPU, each task uses one unit of it.
    """
    from distributed import KilledWorker, as_completed

    def run(
        job: ExtractionJob, todo: Sequence[range], writer: StoreWriter, stores: Sequence[Place], done: Report
    ) -> None:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        resources = {"GPU": 1} if any(worker["resources"].get("GPU") for worker in workers) else None
        places = {"store": writer.store.resolve(), "earlier": tuple(path.resolve() for path in stores)}
        futures = client.map(_encode, todo, spec=spec, **places, pure=False, resources=resources)
        try:
            for future, result in as_completed(futures, with_results=True):
                future.release()  # else the death of a worker would repeat its finished shards
                if isinstance(result, PlaceError):
                    raise result
                done(result)
        except KilledWorker as error:
            raise ExtractionError(
                f"workers died again and again on one shard ({error}). Look at their logs; the usual reason is too"
                " little memory. Finished shards are kept."
            ) from error

    return run


def _encode(rows: range, spec: RemoteJob, store: Place, earlier: tuple[Place, ...]) -> ShardResult | PlaceError:
    """Encode one shard on a worker, except for the rows that a worker wrote before it died.

    The error of a place that does not answer is returned; if it were raised, Dask would log its traceback and retry.
    """
    try:
        writer = ShardWriter(store)
        with _loading:  # the threads of a worker share one encoder
            job, index = _load_job(spec), _index_stores(store, earlier)
        torch.set_num_threads(1)  # a setting of each thread
        return encode_shard(job, rows, writer, index)
    except PlaceError as error:
        return PlaceError(str(error))


_load_job = lru_cache(maxsize=1)(RemoteJob.load)


@lru_cache(maxsize=1)
def _index_stores(store: Place, earlier: tuple[Place, ...]) -> EarlierStores:
    return EarlierStores(earlier, ShardWriter(store).attributes)
