"""Stores, models and scores in remote places, against a real S3 server on loopback that goes away and comes back."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import requests
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from s3fs import S3FileSystem

from pipeline.audio.augment.sources import SourcePool
from pipeline.config.params import Params
from pipeline.config.recipes import condition_recipe
from pipeline.config.train import Train
from pipeline.data.manifest import Utterance, write_manifest
from pipeline.encoders.encoder import Encoder
from pipeline.errors import ConfigError, OutputError, PlaceError, StoreError
from pipeline.extraction.cluster import RemoteJob, connect_dask, distributed_runner
from pipeline.extraction.extract import ExtractionSummary, extract, failures_path, store_attributes, threaded_runner
from pipeline.extraction.reuse import EarlierStores
from pipeline.extraction.shard import ExtractionJob, ShardResult, encode_shard
from pipeline.model.model_file import save_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import StoreWriter, write_store
from pipeline.training.memory import GB, find_least_memory
from pipeline.training.train import train
from pipeline.utils.atomic import replacing
from pipeline.utils.paths import Place, exists, list_names, to_place
from stages.cli import main
from tests.conftest import WriteVoice, tree_bytes
from tests.project import few_or_many
from tests.s3_server import S3Server
from tests.warm import warm_seed

IDS = [f"u{n}" for n in range(10)]
VALUES = np.random.default_rng(0).standard_normal((10, 2, 4, 8)).astype(np.float32)
STATUS = np.full(10, OK, dtype=np.uint8)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a new bucket; who cannot reach it gives up at once."""
    server.start()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "1"}
    for name, value in ({"ENDPOINT_URL": server.url, "EC2_METADATA_DISABLED": "true"} | given).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    S3FileSystem.clear_instance_cache()
    bucket = f"test-{abs(hash(request.node.name)):x}"
    S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    server.start()
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """Two file systems that know no rename: a test of both is not one of how S3 does it."""
    if request.param == "s3":
        yield request.getfixturevalue("bucket")
    else:
        yield "memory://bucket"
        MemoryFileSystem.store.clear()


def objects(folder: Place) -> dict[str, bytes]:
    """What `tree_bytes` says of a local folder, of a remote one."""
    fs, path = folder.fs, folder.path.rstrip("/")  # type: ignore[union-attr]
    return {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in sorted(fs.find(path))}


def put(place: Place, content: bytes) -> None:
    place.fs.pipe_file(place.path, content)  # type: ignore[union-attr]


def made(place: Place, count: int = 10, **attributes: object) -> Place:
    write_store(place, IDS[:count], VALUES[:count], STATUS[:count], {"dim": 8, "encoder": "toy"} | attributes)
    return place


class Corpus:
    """Seven voices, the fourth to sixth of which, a shard of their own, are damaged."""

    def __init__(self, folder: Path, write: WriteVoice, encoder: Encoder) -> None:
        manifest = [Utterance(f"u{n}", f"u{n}.wav", f"s{n}") for n in range(7)]
        for n, row in enumerate(manifest):
            write(folder / row.path, 90 + 30 * n, 0.6, n)
            if 3 <= n < 6:
                (folder / row.path).write_text("not audio")
        self.job = ExtractionJob(
            manifest, folder, condition_recipe("clean", 1, None), SourcePool({}), encoder, 0, "wrap", 1, 0
        )

    def run(self, out: Place) -> ExtractionSummary:
        return extract(self.job, out, store_attributes(self.job, None, None), 3, 3, run=threaded_runner(0))


@pytest.fixture
def corpus(tmp_path: Path, write_voice: WriteVoice, ge2e: Encoder) -> Corpus:
    return Corpus(tmp_path / "audio", write_voice, ge2e)


def test_a_store_has_the_bytes_of_a_local_one_and_nothing_is_left_beside_it(root: str, tmp_path: Path) -> None:
    local, place = tmp_path / "local" / "s.zarr", to_place(f"{root}/folder/s.zarr")
    made(local)
    for _ in range(2):  # the second one replaces the first
        made(place)
        assert objects(place.parent) == tree_bytes(local.parent)
    store = EmbeddingStore.open(place)
    np.testing.assert_array_equal(store.read(), VALUES)
    assert store.utterances == tuple(IDS)
    made(place, 2)  # of fewer shards, and of another recipe
    assert objects(place) == tree_bytes(made(local, 2))


def test_a_store_written_in_one_go_has_the_bytes_of_a_local_one(root: str, tmp_path: Path) -> None:
    local, place = tmp_path / "local" / "s.zarr", to_place(f"{root}/folder/s.zarr")
    for target in (local, place):
        with closing(StoreWriter(target, IDS, VALUES.shape[1:], {"dim": 8}, 4, whole=True)) as writer:
            for rows in writer.shards():
                writer.write(rows, VALUES[rows.start : rows.stop], np.full(len(rows), OK, np.uint8))
            writer.finish()
    assert objects(place.parent) == tree_bytes(local.parent)


def test_what_is_no_store_is_never_replaced_by_one(root: str) -> None:
    letter, foreign = to_place(f"{root}/folder/letter.txt"), made(to_place(f"{root}/foreign.zarr"))
    shards = to_place(f"{root}/shards.zarr/embeddings/c/0")  # could be ours, but nothing says so
    for precious in (letter, foreign / "letter.txt", shards):
        put(precious, b"precious")
    before = objects(to_place(root))
    for place in (letter, letter.parent, foreign, to_place(f"{root}/shards.zarr"), to_place(root)):
        with pytest.raises(OutputError, match="exists and is no embedding store"):
            made(place)
    with pytest.raises(OutputError, match="is a folder"), replacing(letter.parent):
        pass
    assert objects(to_place(root)) == before


def test_files_appear_when_they_are_whole(root: str) -> None:
    place = to_place(f"{root}/folder/table.csv")

    def write_half() -> None:
        with replacing(place) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not exists(place)
    with replacing(place) as temporary:
        temporary.write_text("whole")
    assert objects(place.parent) == {"table.csv": b"whole"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://bucket/*.zarr", "must be without"),
        ("nonsense://bucket/s.zarr", "not a URL that can be read or written"),
        ("gs://bucket/s.zarr", r"\.\[remote\]"),
    ],
)
def test_a_url_that_will_not_do(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        to_place(url)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("upath", "s3fs"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            without.delitem(_registry, "s3", raising=False)
            with pytest.raises(ConfigError, match=r"pip install '\.\[remote\]'"):
                to_place("s3://bucket/s.zarr")


def test_local_paths_need_none_of_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.utils.paths import to_place; import pipeline.model.seed_model, stages.helpers.options\n"
        "from pipeline.store.writer import write_store; import numpy as np\n"
        "from pipeline.store.embedding_store import EmbeddingStore\n"
        "assert to_place('a/b.zarr') == Path('a/b.zarr') and to_place('file:///a%20b') == Path('/a b')\n"
        "write_store(Path('s.zarr'), ['a'], np.ones((1, 1, 1, 2), np.float32), np.ones(1, np.uint8), {'dim': 2})\n"
        "EmbeddingStore.open(Path('s.zarr')).read()\n"
        "found = {'upath', 's3fs', 'botocore', 'aiohttp'} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def is_status(method: str, path: str) -> bool:
    """Whether a request says that a shard is done."""
    return method == "PUT" and "/status/c/" in path


def test_a_short_outage_is_survived(
    corpus: Corpus, server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "10")
    corpus.run(tmp_path / "s.zarr")
    server.go_away_at(is_status, 1, back_after=0.5)
    place = to_place(f"{bucket}/s.zarr")
    assert len(corpus.run(place).failures) == 3
    assert objects(place) == tree_bytes(tmp_path / "s.zarr")
    with failures_path(tmp_path / "s.zarr").open("rb") as file:
        assert objects(place.parent)["s.failures.csv"] == file.read()


def test_after_a_long_outage_no_finished_shard_is_encoded_twice(
    corpus: Corpus, server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[range] = []

    def encode(job: ExtractionJob, rows: range, writer: StoreWriter, earlier: EarlierStores) -> ShardResult:
        encoded.append(rows)
        return encode_shard(job, rows, writer, earlier)

    corpus.run(tmp_path / "s.zarr")
    monkeypatch.setattr("pipeline.extraction.extract.encode_shard", encode)
    place = to_place(f"{bucket}/s.zarr")
    server.go_away_at(is_status, 2)
    with pytest.raises(PlaceError, match=r"a request failed .* Check the network and the endpoint") as caught:
        corpus.run(place)
    assert str(caught.value).startswith(f"{bucket}/")
    assert "\n" not in str(caught.value)
    server.start()
    assert not exists(place / "zarr.json")
    finished = [rows for rows in encoded[:2] if rows != range(3, 6)]  # one whose rows failed is tried again
    encoded.clear()
    assert corpus.run(place).progress.resumed == sum(map(len, finished))
    assert not set(finished) & set(encoded)
    assert objects(place) == tree_bytes(tmp_path / "s.zarr")
    assert list_names(place.parent) == {"s.zarr", "s.failures.csv", "s.warnings.csv"}


@pytest.mark.endurance
@pytest.mark.parametrize("what", few_or_many(["PUT"], ["DELETE", "PUT"]))
def test_an_outage_while_a_store_is_replaced(server: S3Server, bucket: str, tmp_path: Path, what: str) -> None:
    place = made(to_place(f"{bucket}/s.zarr"))
    server.go_away_at(lambda method, path: method == what and "/s.zarr/" in path)
    with pytest.raises(PlaceError):
        made(place, 5)
    server.start()
    with pytest.raises(StoreError, match="no embedding store there"):
        EmbeddingStore.open(place)
    assert list_names(place)  # remains of the old store or of the new one, which the next run may replace
    made(place, 5)
    assert objects(place.parent) == tree_bytes(made(tmp_path / "local" / "s.zarr", 5).parent)


def test_an_outage_while_the_journal_is_taken_away_leaves_nothing_that_passes_for_work(
    server: S3Server, bucket: str
) -> None:
    place = to_place(f"{bucket}/s.zarr")
    server.go_away_at(lambda method, path: method == "DELETE" and path.endswith("/store.zarr/zarr.json"))
    made(place)
    server.start()
    np.testing.assert_array_equal(EmbeddingStore.open(place).read(), VALUES)
    assert list_names(place.parent) == {"s.zarr", ".s.zarr.journal"}
    writer = StoreWriter(place, IDS, VALUES.shape[1:], {"dim": 8, "encoder": "toy"}, 1024)
    assert not writer.status().any()
    made(place)
    assert list_names(place.parent) == {"s.zarr"}


def test_an_outage_is_not_taken_for_damage(server: S3Server, bucket: str) -> None:
    place = made(to_place(f"{bucket}/s.zarr"))
    store = EmbeddingStore.open(place)
    server.stop()
    reads = [lambda: EmbeddingStore.open(place), store.read, lambda: list(store.blocks()), lambda: store.trace(0)]
    for read in reads:
        with pytest.raises(PlaceError, match="a request failed"):
            read()
    server.start()
    np.testing.assert_array_equal(store.read(), VALUES)
    put(place / "embeddings" / "c" / "0" / "0" / "0" / "0", b"noise" * 100)
    with pytest.raises(StoreError, match="corrupt embedding store"):
        EmbeddingStore.open(place).read()


def test_training_streams_from_a_remote_store(bucket: str, tmp_path: Path) -> None:
    ids = [f"s{n // 4}/{n}" for n in range(6000)]
    values = np.random.default_rng(0).standard_normal((6000, 1, 2, 8)).astype(np.float32)
    settings = Train(max_epochs=1, batch_size=256, threads=1)
    models = {}
    for name, place in (("local", tmp_path / "s.zarr"), ("s3", to_place(f"{bucket}/s.zarr"))):
        write_store(place, ids, values, np.full(6000, OK, dtype=np.uint8), {"dim": 8, "encoder": "toy"})
        store = EmbeddingStore.open(place)
        small = settings.model_copy(update={"memory": 1.05 * find_least_memory(store, settings) / GB})
        passes: set[int] = set()
        trained = train(store, small, 0, 50, on_batch=lambda now, passes=passes: passes.add(now.epoch))  # type: ignore[misc]
        assert 0 in passes  # the first pass over a streamed store
        save_model(to_place(f"{bucket}/{name}.safetensors"), trained.model, store.encoder(), {})
        models[name] = objects(to_place(bucket))[f"{name}.safetensors"]
    assert models["local"] == models["s3"]


def seed(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_voice: WriteVoice) -> Path:
    """A working folder with six voices, noise, their lists, parameters and trials."""
    monkeypatch.chdir(tmp_path)
    rows = [Utterance(f"u{n}", f"u{n}.wav", f"s{n // 2}") for n in range(6)]
    for n, row in enumerate(rows):
        write_voice(Path(row.path), 90 + 30 * (n // 2), 1.2, n)
    write_voice(Path("noise.wav"), 300, 1.0, 99)
    write_manifest(Path("m.csv"), rows)
    Path("augment.csv").write_text("kind,path\nnoise,noise.wav\n")
    Path("p.yaml").write_text(
        "extract: {draws: 1, frames: 100, shard: 2, workers: 0,"
        " views: {noise: [{kind: noise, snr: [0, 15]}]}}\ntrain: {max_epochs: 2, threads: 1}\n"
    )
    Path("trials.txt").write_text("1 u0 u1\n0 u0 u2\n1 u2 u3\n0 u3 u4\n")
    return tmp_path


EXTRACT = ("extract", "--manifest", "m.csv", "--augment", "augment.csv", "--set", "train", "--encoder", "ge2e")


def test_the_commands_on_urls_do_what_they_do_on_folders(
    place: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (bucket, str(place / "local")):
        store, model, out = f"{root}/train.zarr", f"{root}/seed.safetensors", f"{root}/seed.zarr"
        params = ("--params", "p.yaml")
        assert seed(*EXTRACT, "--out", store, *params) == 0
        assert seed("train", "--store", store, "--manifest", "m.csv", "--out", model, *params) == 0
        assert seed("enhance", "--store", store, "--model", model, "--out", out, *params) == 0
        sides = ("--enrol", out, "--test", out, "--trials", "trials.txt")
        assert seed("score", *sides, "--out", f"{root}/scores", *params) == 0
        assert seed("store", "check", store, "--no-picture", "--out", f"{root}/check", *params) in (0, 1)
    found = objects(to_place(bucket))
    assert found == tree_bytes(place / "local")
    assert {"train.failures.csv", "seed.safetensors", "seed.curve.csv", "scores/scores.csv", "scores/metrics.json"} <= {
        *found
    }
    assert "u5" in EmbeddingStore.open(to_place(f"{bucket}/seed.zarr")).utterances
    assert list(csv.DictReader(found["seed.curve.csv"].decode().splitlines()))[2]["epoch"] == "2"
    assert seed("score", "--system", f"raw={bucket}", "--manifest", "m.csv", "--out", "x", *params) == 1
    assert f"{bucket}/clean.zarr: no embedding store there" in capsys.readouterr().err


def wrong(server: S3Server, bucket: str) -> dict[str, tuple[dict[str, str | None], list[object], str]]:
    """What is set in the environment, what is run, and what the one line must say."""
    out = [*EXTRACT, "--params", "p.yaml", "--out"]
    train_it = ["train", "--out", "m.safetensors", "--store"]
    keys: dict[str, str | None] = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    return {
        "no credentials": (keys, [*out, f"{bucket}/s.zarr"], "Check the credentials in the environment"),
        "no bucket": ({}, [*out, "s3://nowhere/s.zarr"], "create it if it does not exist"),
        "no bucket to read": ({}, [*train_it, "s3://nowhere/s.zarr"], "no embedding store there"),
        "no server": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, [*out, f"{bucket}/s.zarr"], "Check the network"),
        "no server to read": (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            [*train_it, f"{bucket}/s.zarr"],
            "Check the network and the endpoint",
        ),
        "no model": (
            {},
            ["enhance", "--store", f"{bucket}/s.zarr", "--model", f"{bucket}/m.safetensors", "--out", "e.zarr"],
            "m.safetensors: no such model",
        ),
        "elsewhere": ({}, ["report", "--out", f"{bucket}/r.md"], "is a URL. Give a local path."),
    }


@pytest.mark.parametrize("case", wrong(S3Server.__new__(S3Server), "").keys())
def test_what_can_go_wrong_is_one_clear_line(
    case: str,
    place: Path,
    server: S3Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made(to_place(f"{bucket}/s.zarr"), family="toy")
    environment, arguments, says = wrong(server, bucket)[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    assert seed(*arguments) == (2 if case == "elsewhere" else 1)
    last = capsys.readouterr().err.splitlines()[-1]
    assert says in last
    assert case == "elsewhere" or last.startswith("seed: error: ")


@pytest.fixture
def strict(server: S3Server, bucket: str) -> Iterator[None]:
    """Once the bucket is there, the server checks credentials, as a real one does."""
    requests.post(f"{server.url}/moto-api/reset-auth", data="0", timeout=5).raise_for_status()
    yield
    requests.post(f"{server.url}/moto-api/reset-auth", data="inf", timeout=5).raise_for_status()


@pytest.mark.usefixtures("strict")
def test_credentials_that_are_refused_are_one_clear_line(
    place: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seed(*EXTRACT, "--params", "p.yaml", "--out", f"{bucket}/s.zarr") == 1
    assert seed("train", "--store", f"{bucket}/s.zarr", "--out", "m.safetensors") == 1
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith(f"seed: error: {bucket}/")
        assert "PermissionError" in line
        assert "Check the credentials in the environment" in line


def test_a_command_that_loses_the_server_says_so_on_one_line_and_goes_on_later(
    place: Path, server: S3Server, bucket: str
) -> None:
    command = [str(warm_seed() / "seed"), *EXTRACT, "--params", "p.yaml", "--out", f"{bucket}/s.zarr"]
    server.go_away_at(is_status, 2)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("seed: error: s3://")
    server.start()
    assert seed(*command[1:]) == 0
    assert seed(*command[1:-1], "s.zarr") == 0
    assert objects(to_place(f"{bucket}/s.zarr")) == tree_bytes(place / "s.zarr")


def test_workers_of_other_processes_share_the_journal(place: Path, server: S3Server, bucket: str) -> None:
    params = Params.model_validate({"extract": {"draws": 1, "frames": 100}})
    spec = RemoteJob(place / "m.csv", None, place, "clean", "ge2e", None, params.model_dump_json())
    job, out = spec.load(), to_place(f"{bucket}/s.zarr")
    attributes = store_attributes(job, None, None)
    with connect_dask("processes", 1) as client:
        server.go_away_at(is_status, 1)
        with pytest.raises(PlaceError, match="a request failed"):
            extract(job, out, attributes, 2, run=distributed_runner(client, spec))
        server.start()
        assert extract(job, out, attributes, 2, run=distributed_runner(client, spec)).progress.resumed == 2
    extract(job, place / "s.zarr", attributes, 2)
    assert objects(out) == tree_bytes(place / "s.zarr")
