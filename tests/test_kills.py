"""Real processes, killed at random moments, stopped by Ctrl-C, or out of disk: nothing is lost, nothing done twice."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import soundfile
from ruamel.yaml import YAML

from pipeline.files import sha256_of
from pipeline.store import MISSING, OK, EmbeddingStore
from tests.conftest import tree_bytes, voice
from tests.test_pipeline import Project

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parent.parent
VOICES, SHARD = 119, 2
SHARDS = 60
STOPPED = "seed: stopped. Run the same command again; an extraction goes on where it was."
SPEED = {"threads": 1.0, "processes": 2.5}
"""How long it takes until the first shard, roughly."""

Chunks = dict[str, tuple[int, int]]


def write_voices(folder: Path, count: int, seconds: float) -> None:
    folder.mkdir(parents=True)
    for n in range(count):
        soundfile.write(folder / f"{n:03}.wav", voice(90 + 2 * n, seconds, n), 16_000)


def extraction(place: Path, out: Path, scheduler: str, *more: str) -> list[str]:
    command = [sys.executable, "-m", "stages.cli", "extract", "--root", str(place), "--out", str(out)]
    command += ["--manifest", str(place / "m.csv"), "--params", str(place / "p.yaml"), "--scheduler", scheduler]
    return command + (["--encoder", "ge2e"] if "--encoder" not in more else []) + list(more)


def start(command: list[str], **options: object) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own, as a shell does."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes | options)  # type: ignore[call-overload,no-any-return]


def finish(command: list[str]) -> str:
    """Run a command to its end, and return what it says."""
    process = start(command)
    out, err = process.communicate()
    assert (process.returncode, err.count("Traceback")) == (0, 0), err
    return out


def shards_done(folder: Path) -> int:
    """How many shards have a status, in all journals below a folder."""
    chunks = [path for each in folder.rglob(".*.journal") for path in each.glob("*/store.zarr/status/c/*")]
    return sum(path.name.isdigit() for path in chunks)


def finished(folder: Path, failed_too: bool = False) -> Chunks:
    """Inode and time of change of each chunk of the finished shards, in all journals below a folder."""
    chunks = {}
    for journal in folder.rglob(".*.zarr.journal"):
        for path in journal.glob("*/store.zarr"):
            store = EmbeddingStore.open(path, unfinished=True)
            whole = store.status != MISSING if failed_too else store.status == OK
            for index, rows in enumerate(store.shards()):
                if whole[rows.start : rows.stop].all():
                    name = journal.name.removeprefix(".").removesuffix(".journal")
                    chunks |= {f"{name}/{key}": value for key, value in chunks_of(path, str(index)).items()}
    return chunks


def chunks_of(store: Path, index: str = "*") -> Chunks:
    """Inode and time of change of each file of a store's chunks, or of those of one shard."""
    files = [path for each in store.glob(f"*/c/{index}") for path in (each, *each.rglob("*")) if path.is_file()]
    return {str(path.relative_to(store)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def results(folder: Path) -> dict[str, bytes]:
    """All files that are there, hidden ones as well, but for the journal."""
    return {name: content for name, content in tree_bytes(folder).items() if ".journal/" not in name}


def until(process: "subprocess.Popen[str]", happens: Callable[[], bool]) -> None:
    """Wait until something has happened, or the process has ended."""
    while process.poll() is None and not happens():
        time.sleep(0.002)


def kill(process: "subprocess.Popen[str]") -> bool:
    """Kill a process group; tell whether it was still at work."""
    os.killpg(process.pid, signal.SIGKILL)  # there is one as long as we have not asked how it ended
    process.communicate()
    return process.returncode == -signal.SIGKILL


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
    assert "120 utterances;" in out
    return Whole(place, results(place / "whole"), start_up)


@pytest.mark.parametrize(("scheduler", "kills"), [("threads", 13), ("processes", 7)])
def test_an_extraction_killed_at_random_moments_goes_on(
    whole: Whole, tmp_path: Path, scheduler: str, kills: int
) -> None:
    rng = random.Random(f"{scheduler} {kills}")
    left, met, folder, known = kills, 0, tmp_path / "0", Chunks()

    def command() -> list[str]:
        return extraction(whole.place, folder / "s.zarr", scheduler)

    def complete() -> None:
        if (folder / "s.zarr").exists():  # killed after the move
            assert known.items() <= {f"s.zarr/{key}": value for key, value in chunks_of(folder / "s.zarr").items()}.items()
            finish(command())
        else:
            said = finish(command())
            assert ("resumed" in said) == bool(known)
            assert known.items() <= {f"s.zarr/{key}": value for key, value in chunks_of(folder / "s.zarr").items()}.items()
        assert results(folder) == whole.results

    while left:
        process, before = start(command()), shards_done(folder)
        phase = ("encoding", "start-up", "encoding", "finish")[left % 4]
        if phase == "start-up":
            wait = rng.uniform(0, whole.start_up * SPEED[scheduler])
            until(process, lambda end=time.monotonic() + wait: time.monotonic() > end)  # type: ignore[misc]
        else:
            share = 1.0 if phase == "finish" else rng.uniform(0.0, 0.4)
            goal = before + max(1, round(share * (SHARDS - before)))
            until(process, lambda: shards_done(folder) >= goal or (folder / "s.zarr").exists())  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
        left -= kill(process)
        now = finished(folder)
        met += 0 < len(now) and not (folder / "s.zarr").exists()
        if (folder / "s.zarr").exists():
            complete()
            folder, known = tmp_path / str(left), Chunks()
        else:
            assert known.items() <= now.items()
            known = now
    complete()
    assert met > kills / 2  # they were no kills of what had not begun, or was over


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if any("spawn_main" in part for part in child.cmdline())]


def test_ten_workers_killed_while_the_run_goes_on(whole: Whole, tmp_path: Path) -> None:
    rng, kills, runs = random.Random(10), 0, 0
    while kills < 10:
        folder = tmp_path / str(runs)
        process, runs, known = start(extraction(whole.place, folder / "s.zarr", "processes")), runs + 1, Chunks()
        goal = 8
        while kills < 10:
            until(process, lambda: shards_done(folder) >= goal or (folder / "s.zarr").exists())  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
            workers = workers_of(process) if process.poll() is None else []
            if not workers:
                break
            rng.choice(workers).kill()
            kills += 1
            goal = shards_done(folder) + rng.randint(2, 5)
            known = known if (folder / "s.zarr").exists() else finished(folder, failed_too=True)
        out, err = process.communicate()
        assert (process.returncode, err.count("\n")) == (0, 1), err  # the line on the one that failed
        assert "120 utterances;" in out
        assert known.items() <= {f"s.zarr/{key}": value for key, value in chunks_of(folder / "s.zarr").items()}.items()
        assert results(folder) == whole.results
