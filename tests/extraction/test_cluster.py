import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest

from pipeline.audio.augment.sources import Source
from pipeline.config.params import Params
from pipeline.data.manifest import Utterance, hash_list, write_augment, write_manifest
from pipeline.errors import ConfigError, CorpusError, ExtractionError, ManifestError
from pipeline.extraction.cluster import RemoteJob, connect_dask, distributed_runner
from pipeline.extraction.extract import ExtractionSummary, extract, store_attributes, threaded_runner
from pipeline.store.embedding_store import EmbeddingStore
from tests.conftest import WriteVoice, assert_same_stores, tree_bytes

SHARD = 2


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    """A real scheduler and two real worker processes on loopback."""
    with connect_dask("processes", 2) as client:
        yield client


@pytest.fixture
def spec(tmp_path: Path, write_voice: WriteVoice) -> RemoteJob:
    """Eleven voices and one source of each kind, on disk."""
    root = tmp_path / "audio"
    rows = [Utterance(f"u{n}", f"speech/u{n}.wav", f"s{n}") for n in range(11)]
    for n, row in enumerate(rows):
        write_voice(root / row.path, 90 + 20 * n, 1.0, n)
    kinds = {"noise": 2.0, "music": 2.0, "rooms": 0.02, "babble": 1.5}
    sources = [
        {"kind": kind, "path": Source(write_voice(root / f"{kind}.wav", 300, length, 99)).path.name}
        for kind, length in kinds.items()
    ]
    write_manifest(tmp_path / "m.csv", rows)
    write_augment(tmp_path / "a.csv", sources)
    params = Params.model_validate({"extract": {"draws": 2, "frames": 100, "shard": SHARD}})
    return RemoteJob(tmp_path / "m.csv", tmp_path / "a.csv", root, "train", "ge2e", None, params.model_dump_json())


def run(spec: RemoteJob, out: Path, client: object | None = None) -> ExtractionSummary:
    job = spec.load()
    runner = distributed_runner(client, spec) if client else threaded_runner(0)
    return extract(job, out, store_attributes(job, None, None), SHARD, 0, None, runner)


def test_two_worker_processes_write_the_store_of_one(spec: RemoteJob, client: object, tmp_path: Path) -> None:
    alone = run(spec, tmp_path / "alone" / "s.zarr")
    together = run(spec, tmp_path / "together" / "s.zarr", client)
    assert (together.progress.encoded, alone.progress.encoded) == (11, 11)
    assert together.progress.seconds == pytest.approx(alone.progress.seconds)
    assert_same_stores(tree_bytes(tmp_path / "together"), tree_bytes(tmp_path / "alone"))


def test_a_list_that_changes_meanwhile_is_an_error(spec: RemoteJob) -> None:
    hashes = hash_list(spec.manifest), hash_list(spec.augment)
    replace(spec, lists_sha256=hashes).load()
    spec.manifest.write_text(spec.manifest.read_text().replace("s3", "s4"))
    with pytest.raises(ManifestError, match=r"m\.csv: has changed since the extraction began"):
        replace(spec, lists_sha256=hashes).load()


def test_only_small_things_travel(spec: RemoteJob) -> None:
    import pickle

    assert len(pickle.dumps(spec)) < 10_000


def test_a_bad_row_comes_back_with_its_reason(spec: RemoteJob, client: object, tmp_path: Path) -> None:
    (spec.root / "speech/u3.wav").write_text("prose")
    with pytest.raises(ExtractionError, match=r"1 of 11 utterances failed.* First: u3: .*cannot be read as audio"):
        run(spec, tmp_path / "s.zarr", client)


def test_an_error_of_a_worker_is_the_users_error(spec: RemoteJob, client: object, tmp_path: Path) -> None:
    (spec.root / "noise.wav").write_text("prose")
    with pytest.raises(CorpusError, match="augmentation source"):
        run(spec, tmp_path / "s.zarr", client)


def test_a_scheduler_that_runs_elsewhere(spec: RemoteJob, client: Any, tmp_path: Path) -> None:
    with connect_dask(client.cluster.scheduler_address, 0) as another:
        assert run(spec, tmp_path / "s.zarr", another).progress.rows == 11
    assert EmbeddingStore.open(tmp_path / "s.zarr").ok.tolist() == list(range(11))


def test_a_scheduler_that_does_not_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.extraction.cluster.CONNECT_TIMEOUT", 1.0)
    with (
        pytest.raises(ExtractionError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1: .*"),
        connect_dask("tcp://127.0.0.1:1", 0),
    ):
        pass


def test_a_worker_that_dies_while_it_starts_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "die.py").write_text("import os\n\nos._exit(3)\n")
    with (
        dask.config.set({"distributed.worker.preload": [str(tmp_path / "die.py")]}),
        pytest.raises(ExtractionError, match=r"a worker process died while it started .*lower extract.workers"),
        connect_dask("processes", 1),
    ):
        pass


def test_without_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"\.\[cluster\]"), connect_dask("processes", 1):
        pass


def test_slurm_jobs_ask_for_a_gpu_and_declare_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples" / "slurm"))
    import cluster

    with cluster.make_cluster() as slurm:
        script = slurm.job_script()
    assert "#SBATCH --gres=gpu:1" in script
    assert "#SBATCH --cpus-per-task=8" in script
    assert "--nthreads 1" in script
    assert "--resources GPU=1" in script
