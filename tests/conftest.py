"""Shared fixtures: small audio made on the spot, the real GE2E encoder, and the real recordings where they are."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # set before torch is loaded: else threads of several runs wait for each other
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

import gc
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from pipeline.store.integrity import split_checksums
from stages.cli import is_amd, request_same_bits
from tests.damage import CountDamage
from tests.project import FirstRun, Project
from tests.warm import made_once

if TYPE_CHECKING:  # torch is imported where it is needed: not in the process that only hands out tests
    from pipeline.encoders.encoder import Encoder

request_same_bits()  # as `seed` does

WriteVoice = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that others run beside them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection, which would look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_corpora() -> Path:
    root = Path(os.environ.get("SEED_DATA") or "data/corpora")
    if not (root / "speechocean762").is_dir():
        pytest.skip("SEED_DATA does not point to the real recordings")
    return root.resolve()


@pytest.fixture(scope="session")
def ge2e() -> "Encoder":
    from pipeline.encoders.registry import load_encoder

    return load_encoder("ge2e")


@pytest.fixture(scope="session")
def campplus() -> "Encoder":
    from pipeline.encoders.registry import load_encoder

    return load_encoder("campplus")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """Run the whole pipeline on a cut-down demo by `make repro`: once, for all workers of a run."""

    def make(folder: Path) -> None:
        project = Project(folder / "project")
        project.install()
        (folder / "stages.json").write_text(json.dumps(project.repro("make", "repro")))

    base = tmp_path_factory.getbasetemp()
    folder = made_once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "first", make)
    return FirstRun(folder / "project", json.loads((folder / "stages.json").read_text()))


def voice(pitch: float, seconds: float, seed: int, rate: int = 16_000) -> np.ndarray:
    """A buzz of harmonics with a wandering envelope; unlike noise, encoders tell these apart."""
    return make_voice(pitch, seconds, seed, rate).copy()


@cache
def make_voice(pitch: float, seconds: float, seed: int, rate: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    harmonics = np.arange(1, int(3500 / pitch))
    tone = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in harmonics)
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(2, 5) * time)
    return (0.1 * tone * envelope + 0.001 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture
def write_voice() -> WriteVoice:
    def write(path: Path, pitch: float = 120.0, seconds: float = 2.5, seed: int = 0, rate: int = 16_000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, voice(pitch, seconds, seed, rate), rate)
        return path

    return write


@pytest.fixture
def count_damage(record_property: Callable[[str, object], None]) -> CountDamage:
    """Count outcomes, whose sums are printed at the end of the run."""
    outcomes: dict[str, int] = {}
    record_property("damage", outcomes)

    def count(outcome: str) -> None:
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how often damage was noticed or harmless, by test."""
    reports = [report for report in terminalreporter.getreports("passed") if hasattr(report, "user_properties")]
    counts = {report.nodeid: dict(report.user_properties).get("damage") for report in reports}
    for name, outcomes in counts.items():
        if outcomes:
            text = ", ".join(f"{what} {number:,}" for what, number in sorted(outcomes.items()))
            terminalreporter.write_line(f"damage: {text}, silent 0: {name}")


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def assert_same_stores(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Compare `tree_bytes` of extractions, and say where they differ.

    Nothing may, but for the last bits of embeddings on processors of AMD (docs/data.md), and then their checksums.
    """
    assert one.keys() == other.keys()
    differing = [name for name in one if one[name] != other[name]]
    for name in differing:
        if name.endswith("zarr.json") and any("/embeddings/c/" in each for each in differing):
            first, second = (json.loads(content)["attributes"] for content in (one[name], other[name]))
            assert split_checksums(first)[0] == split_checksums(second)[0], f"{name} differs"
            continue
        assert "/embeddings/c/" in name, f"{name} differs"
        vectors, others = (np.frombuffer(content[:-4], np.float32) for content in (one[name], other[name]))  # less CRC
        apart = np.abs(vectors - others)
        assert is_amd(), f"{name}: {(apart > 0).sum()} of {apart.size} values differ, by {apart.max()} at most"
        assert apart.max() < 1e-6, f"{name} differs by {apart.max()}"
