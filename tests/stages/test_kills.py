"""Real processes, killed at random moments, stopped by Ctrl-C, or out of disk: nothing is lost, nothing done twice.

`make endurance` kills more often, and starts every process from scratch.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import soundfile
from ruamel.yaml import YAML

from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import MISSING, OK
from stages.cli import GRACE
from tests.conftest import assert_same_stores, tree_bytes, voice
from tests.project import ENDURANCE, Project, few_or_many
from tests.warm import warm_seed

pytestmark = [pytest.mark.slow, pytest.mark.endurance]

PROJECT = Path(__file__).parents[2]
VOICES, SHARD = few_or_many(39, 119), 2
SHARDS = (VOICES + 1) // SHARD
STOPPED = "seed: stopped. Run the same command again: extractions resume by themselves, trainings with --resume."
MARK = "SEED_TEST"
"""The environment variable that marks a command and all its children."""
SPEED = {"threads": 1.0, "processes": 2.5}
"""How long it takes until the first shard, roughly."""

Chunks = dict[str, tuple[int, int]]


def write_voices(folder: Path, count: int, seconds: float) -> None:
    folder.mkdir(parents=True)
    for n in range(count):
        soundfile.write(folder / f"{n:03}.wav", voice(90 + 2 * n, seconds, n), 16_000)


def extraction(place: Path, out: Path, scheduler: str, *more: str, cold: bool = ENDURANCE) -> list[str]:
    command = [sys.executable, "-m", "stages.cli"] if cold else [str(warm_seed() / "seed")]
    command += ["extract", "--root", str(place), "--out", str(out)]
    command += ["--manifest", str(place / "m.csv"), "--params", str(place / "p.yaml"), "--scheduler", scheduler]
    return command + (["--encoder", "ge2e"] if "--encoder" not in more else []) + list(more)


def start(command: list[str], **options: object) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own, as a shell does: it hears Ctrl-C, even if we do not."""
    usual = {"env": os.environ | {"PYTHONPATH": str(PROJECT)}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    usual |= {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(command, start_new_session=True, text=True, **usual | options)  # type: ignore[call-overload,no-any-return]


def finish(command: list[str]) -> str:
    """Run a command to its end, and return what it says."""
    process = start(command)
    out, err = process.communicate()
    assert (process.returncode, err.count("Traceback")) == (0, 0), err
    return out


def shards_done(folder: Path, store: str = "*.zarr") -> int:
    """How many shards have a status, in the journals in a folder, which may be at work, or not be there."""
    chunks = glob(f"{folder}/.{store}.journal/*/store.zarr/status/c/*")
    return sum(chunk.rpartition("/")[2].isdigit() for chunk in chunks)


def finished(folder: Path, failed_too: bool = False) -> Chunks:
    """Inode and time of change of each chunk of the finished shards, in the journals in a folder."""
    chunks = {}
    for journal in folder.glob(".*.zarr.journal"):
        for path in journal.glob("*/store.zarr"):
            if not (path / "zarr.json").exists():  # the kill came while it was made
                continue
            store = EmbeddingStore.open(path, unfinished=True)
            whole = store.status != MISSING if failed_too else store.status == OK
            for index, rows in enumerate(store.shards()):
                if whole[rows.start : rows.stop].all():
                    name = journal.name.removeprefix(".").removesuffix(".journal")
                    chunks |= chunks_of(path, str(index), name)
    return chunks


def chunks_of(store: Path, index: str = "*", name: str | None = None) -> Chunks:
    """Inode and time of change of each file of a store's chunks, or of those of one shard."""
    files = [path for each in store.glob(f"*/c/{index}") for path in (each, *each.rglob("*")) if path.is_file()]
    files = [path for path in files if path.suffix != ".partial"]  # of a write that was killed; it is tidied up
    name = name or store.name
    return {f"{name}/{path.relative_to(store)}": (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def results(folder: Path) -> dict[str, bytes]:
    """All files that are there, hidden ones as well, but for the journal and what DVC writes."""
    files = tree_bytes(folder).items()
    return {name: content for name, content in files if ".journal/" not in name and name != ".gitignore"}


def until(process: "subprocess.Popen[str]", happens: Callable[[], bool]) -> None:
    """Wait until something has happened, or the process has ended."""
    while process.poll() is None and not happens():
        time.sleep(0.005)


def wait(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Wait for some time, or until the process has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def kill(process: "subprocess.Popen[str]") -> tuple[bool, str]:
    """Kill a process group; return whether it was still at work, and what it has said.

    A warm process is killed by the one it was forked from. It is dead as well when its output has ended.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[0]
    return process.returncode == -signal.SIGKILL, said


def interrupted(command: list[str], ready: Callable[["subprocess.Popen[str]"], bool], **options: object) -> None:
    """Press Ctrl-C twice, and see that the command and its children end long before their work would, with one line."""
    process = start(command, **options)
    until(process, lambda: ready(process))
    time.sleep(2)
    children = psutil.Process(process.pid).children(recursive=True)
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert time.monotonic() - pressed < GRACE + 7
    assert (process.returncode, out, err.strip()) == (130, "", STOPPED)
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose shards take long."""
    place = tmp_path_factory.mktemp("slow")
    write_voices(place / "audio", 4, 20.0)
    lines = [f"{n},audio/{n % 4:03}.wav\n" for n in range(64)]
    (place / "m.csv").write_text("utterance,path\n" + "".join(lines))
    (place / "p.yaml").write_text("extract: {shard: 32}\n")
    return place


@pytest.mark.parametrize("scheduler", few_or_many(["threads"], ["threads", "processes"]))
def test_ctrl_c_stops_an_extraction_amid_long_shards(slow: Path, tmp_path: Path, scheduler: str) -> None:
    count = 1 if scheduler == "threads" else 4  # this process, a tracker of what is shared, two workers

    def ready(process: "subprocess.Popen[str]") -> bool:
        journal = glob(f"{tmp_path}/.s.zarr.journal/*/store.zarr/zarr.json")
        return bool(journal) and len(psutil.Process(process.pid).children(recursive=True)) + 1 >= count

    interrupted(extraction(slow, tmp_path / "s.zarr", scheduler, "--encoder", "campplus", cold=True), ready)
    assert [path.name for path in tmp_path.iterdir()] == [".s.zarr.journal"]


def test_ctrl_c_stops_other_commands(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(PROJECT / "data/corpora.yaml", tmp_path / "data")
    command = [sys.executable, "-m", "stages.cli", "fetch", "--corpus", "demo"]
    made = tmp_path / "data/audio/demo"
    interrupted(command, lambda process: any(made.rglob("*.flac")), cwd=tmp_path)
    assert not (made / "corpus.json").exists()


class Whole(NamedTuple):
    """A corpus of short voices, one of them unreadable, and what an undisturbed extraction makes of it."""

    place: Path
    results: dict[str, bytes]
    start_up: float
    """Seconds until the first shard."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    place = tmp_path_factory.mktemp("corpus")
    write_voices(place / "audio", VOICES, 1.0)
    (place / "audio/prose.wav").write_text("prose")
    names = ["prose", *(f"{n:03}" for n in range(VOICES))]
    (place / "m.csv").write_text("utterance,path\n" + "".join(f"{name},audio/{name}.wav\n" for name in names))
    (place / "p.yaml").write_text(f"extract: {{shard: {SHARD}}}\n")
    process = start(extraction(place, place / "whole/s.zarr", "threads"))
    started = time.monotonic()
    until(process, lambda: shards_done(place / "whole") > 0)
    start_up = time.monotonic() - started
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"{VOICES + 1} utterances;" in out
    return Whole(place, results(place / "whole"), start_up)


@pytest.mark.parametrize(
    ("scheduler", "kills"),
    [("threads", few_or_many(4, 14)), ("processes", few_or_many(1, 6))],
    ids=["threads", "processes"],
)
def test_an_extraction_killed_at_random_moments_goes_on(
    whole: Whole, tmp_path: Path, scheduler: str, kills: int
) -> None:
    rng = random.Random(f"{scheduler} {kills}")
    left, folder, known = kills, tmp_path / "0", Chunks()

    def command() -> list[str]:
        return extraction(whole.place, folder / "s.zarr", scheduler)

    def complete() -> None:
        moved = (folder / "s.zarr").exists()
        if not moved:
            assert "resumed" in finish(command()) or not known
        assert known.items() <= chunks_of(folder / "s.zarr").items()
        if moved and any(folder.glob(".*.journal")):
            finish(command())
        assert_same_stores(results(folder), whole.results)

    while left:
        process, before = start(command()), shards_done(folder)
        phase = ("start-up", "encoding", "encoding", "finish")[left % 4]
        if phase == "start-up":
            wait(process, rng.uniform(0, whole.start_up * SPEED[scheduler]))
        else:
            share = 1.0 if phase == "finish" else rng.uniform(0.0, 0.4)
            goal = before + max(2, round(share * (SHARDS - before)))  # one shard has a row that failed
            until(process, lambda: shards_done(folder) >= goal or (folder / "s.zarr").exists())  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
        left -= kill(process)[0]
        now = finished(folder)
        if (folder / "s.zarr").exists():
            complete()
            folder, known = tmp_path / str(left), Chunks()
        else:
            assert known.items() <= now.items()
            assert now or phase == "start-up"  # else, there was work to lose
            known = now
    complete()


def workers_of(mark: Path) -> list[psutil.Process]:
    """Return the workers of commands that were started with this mark: what servers of forks have forked."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has just ended
            server = process.parent()
            is_fork = server and all("forkserver" in " ".join(each.cmdline()) for each in (process, server))
            found += [process] if is_fork and process.environ().get(MARK) == str(mark) else []
    return found


@pytest.mark.skipif(not ENDURANCE, reason="`test_dvc_repro_killed_at_random_moments_goes_on` kills one: make endurance")
def test_workers_killed_while_the_run_goes_on(whole: Whole, tmp_path: Path) -> None:
    rng, kills, runs, all_kills = random.Random(10), 0, 0, 10
    while kills < all_kills:
        folder = tmp_path / str(runs)
        environment = os.environ | {"PYTHONPATH": str(PROJECT), MARK: str(folder)}
        process = start(extraction(whole.place, folder / "s.zarr", "processes"), env=environment)
        runs, known = runs + 1, Chunks()
        goal = 8
        while kills < all_kills:
            until(process, lambda: shards_done(folder) >= goal or (folder / "s.zarr").exists())  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
            workers = workers_of(folder)
            if not workers:
                break
            rng.choice(workers).kill()
            kills += 1
            goal = shards_done(folder) + rng.randint(2, 5)
            known = known if (folder / "s.zarr").exists() else finished(folder, failed_too=True)
        out, err = process.communicate()
        told = [line for line in err.splitlines() if not line.startswith("{")]  # but progress, every 30 s
        assert (process.returncode, len(told)) == (0, 1), err  # the line on the one that failed
        assert f"{VOICES + 1} utterances;" in out
        assert known.items() <= chunks_of(folder / "s.zarr").items()
        assert_same_stores(results(folder), whole.results)


class Tiny(Project):
    """A clone with sets of twelve shards each."""

    VOICES = 24
    sets = ("train", "clean")

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        super().__init__(folder, source)
        self.stores = folder / "data/embeddings/ge2e"
        if source:
            return
        for part in ("train", "test"):
            write_voices(folder / "voices" / part / part, self.VOICES, 1.0)
        definition = {"title": "t", "licence": "l", "root": str(folder), "folders": {"speech": "voices"}}
        definition |= {"speaker": "([^/]+)/[^/]+$", "overlap": True}
        definition |= {part: {"speech": f"{part}/*/*.wav"} for part in ("train", "test")}
        with (folder / "data/corpora.yaml").open("w") as file:
            YAML(typ="safe").dump({"tiny": definition}, file)
        params = YAML(typ="safe").load((folder / "params.yaml").read_text())
        params |= {"corpus": ["tiny"], "conditions": ["clean"], "sets": list(self.sets)}
        params["extract"] |= {"shard": SHARD, "frames": 100}
        params["extract"] |= {"views": {"cut": [{"kind": "clip", "percent": [1, 5]}]}}
        self.write(params)
        self.call("dvc", "repro", "join")

    def start(self) -> "subprocess.Popen[str]":
        folders = [] if ENDURANCE else [str(warm_seed())]
        path = os.pathsep.join([*folders, str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(PROJECT), MARK: str(self.folder)}
        return start(["dvc", "repro", "extract"], cwd=self.folder, env=environment, stderr=subprocess.STDOUT)

    def progress(self) -> int:
        """How many shards are done, those of finished stores included."""
        stores = [f"{name}.zarr" for name in self.sets]
        return sum(
            self.VOICES // SHARD if (self.stores / name).exists() else shards_done(self.stores, name) for name in stores
        )

    def whole(self) -> dict[str, bytes]:
        """Extract all sets undisturbed, outside DVC, by one process."""
        for name in self.sets:
            lists = ["--manifest", f"data/manifests/{name}.csv", "--augment", f"data/manifests/{name}.augment.csv"]
            options = ["--set", name, "--encoder", "ge2e", "--scheduler", "threads"]
            self.call("seed", "extract", *lists, *options, "--out", f"whole/{name}.zarr")
        return results(self.folder / "whole")

    def forget(self) -> None:
        """Take away what was extracted, and what DVC knows of it."""
        shutil.rmtree(self.stores)
        shutil.rmtree(self.folder / ".dvc/cache/runs")
        self.forget_lock()

    def forget_lock(self) -> None:
        """Take away what dvc.lock knows of extractions."""
        lock = YAML(typ="safe").load((self.folder / "dvc.lock").read_text())
        lock["stages"] = {name: stage for name, stage in lock["stages"].items() if not name.startswith("extract")}
        with (self.folder / "dvc.lock").open("w") as file:
            YAML(typ="safe").dump(lock, file)

    def mend(self, said: str) -> None:
        """Do what docs/data.md says where DVC was killed while it wrote a file of its own."""
        signs = {"Unable to read RWLock-file": ".dvc/tmp/rwlock", "dvc.lock' validation failed": "dvc.lock"}
        torn = [name for sign, name in signs.items() if sign in said]
        assert torn, said
        (self.folder / torn[0]).unlink()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny") / "project")


def test_dvc_repro_killed_at_random_moments_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    project = Tiny(tmp_path / "project", tiny.folder)
    rng, left, met = random.Random(20), few_or_many(2, 20), False
    known: dict[str, Chunks] = {name: {} for name in project.sets}

    def check(said: str) -> None:
        """Look at what was resumed by extractions that came to their end, and at the shards of the others."""
        for name, chunks in known.items():
            rows = sum(SHARD for chunk in chunks if "/status/" in chunk)
            for resumed in re.findall(rf"{name}.zarr: {Tiny.VOICES} utterances(?:, (\d+) of them resumed)?;", said):
                assert int(resumed or 0) >= rows
            journal = finished(project.stores)
            now = {chunk: when for chunk, when in journal.items() if chunk.startswith(f"{name}.zarr/")}
            if now or not (project.stores / f"{name}.zarr").exists():
                assert chunks.items() <= now.items()  # also of a store that is in place, but not in DVC's cache yet
            known[name] = now

    while left > 0 or not met:  # not only before the first shard, or after the last
        process, before = project.start(), project.progress()
        phase = ("any", "encoding", "moved", "encoding", "encoding")[left % 5]
        if phase == "any":
            wait(process, rng.uniform(0, 5))
        elif phase == "encoding":
            goal = before + rng.randint(1, 8)
            until(process, lambda: project.progress() >= goal)  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
        else:
            seen = {path.name for path in project.stores.glob("*.zarr")}
            until(process, lambda: bool({path.name for path in project.stores.glob("*.zarr")} - seen))  # noqa: B023
            time.sleep(rng.uniform(0, 1))
        killed, said = kill(process)
        left -= killed
        if process.returncode > 0:
            project.mend(said)
            continue
        check(said)
        met = met or any(known.values())
        if process.returncode == 0:
            project.forget()
            known = {name: {} for name in project.sets}

    project.change("extract", scheduler="processes")
    process = project.start()
    if not ENDURANCE:  # one of its workers; `test_workers_killed_while_dvc_repro_goes_on` kills more
        goal = project.progress() + 1
        until(process, lambda: project.progress() >= goal and bool(workers_of(project.folder)))
        for worker in workers_of(project.folder)[:1]:
            worker.kill()
    said = process.communicate()[0]
    assert process.returncode == 0, said
    check(said)
    whole = project.whole()
    assert_same_stores(results(project.stores), whole)

    assert "Running stage" not in project.call("dvc", "repro", "extract")
    shutil.rmtree(project.stores / "train.zarr")
    project.call("dvc", "checkout", "extract@ge2e-train")
    assert_same_stores(results(project.stores), whole)
    for path in project.stores.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    project.forget_lock()
    said = project.call("dvc", "repro", "extract")
    assert said.count("is cached - skipping run") == len(project.sets)
    assert "Running stage" not in said
    assert_same_stores(results(project.stores), whole)


@pytest.mark.skipif(not ENDURANCE, reason="takes half a minute: make endurance")
def test_workers_killed_while_dvc_repro_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    project = Tiny(tmp_path / "project", tiny.folder)
    project.change("extract", scheduler="processes")
    rng, whole = random.Random(11), dict[str, bytes]()
    kills, all_kills = 0, few_or_many(2, 10)
    while kills < all_kills:
        process, known = project.start(), Chunks()
        while kills < all_kills:
            goal = project.progress() + rng.randint(1, 3)
            until(process, lambda: project.progress() >= goal)  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
            workers = workers_of(project.folder)
            if workers:
                rng.choice(workers).kill()
                kills += 1
            elif process.poll() is not None:
                break
            now = finished(project.stores)
            journals = {chunk.partition("/")[0] for chunk in now}
            assert {item for item in known.items() if item[0].partition("/")[0] in journals} <= now.items()
            known = now
        said = process.communicate()[0]
        assert process.returncode == 0, said
        assert said.count(f"{Tiny.VOICES} utterances;") == len(project.sets), said  # none of them resumed: one run each
        whole = whole or project.whole()
        assert_same_stores(results(project.stores), whole)
        project.forget()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of two megabytes, nearly full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    try:
        (folder / "filler").write_bytes(bytes(few_or_many(1_850_000, 1_500_000)))
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("scheduler", few_or_many(["threads"], ["threads", "processes"]))
def test_a_full_disk_is_one_line_and_the_work_goes_on_after(whole: Whole, disk: Path, scheduler: str) -> None:
    command = extraction(whole.place, disk / "s.zarr", scheduler, "--workers", "1")
    process = start(command)
    out, err = process.communicate()
    assert (process.returncode, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith(f"seed: error: No space left on device: {disk}")
    assert err.endswith("Free some space and run the command again: finished work is kept.\n")
    assert sorted(path.name for path in disk.iterdir()) == [".s.zarr.journal", "filler"]
    known = finished(disk)
    assert known
    (journal,) = disk.glob(".*.zarr.journal/*/store.zarr")
    rows = int((EmbeddingStore.open(journal, unfinished=True).status == OK).sum())
    (disk / "filler").unlink()
    assert f"{VOICES + 1} utterances, {rows} of them resumed;" in finish(command)
    assert known.items() <= chunks_of(disk / "s.zarr").items()
    assert_same_stores(results(disk), whole.results)
