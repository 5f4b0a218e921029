import shutil
import subprocess
from pathlib import Path

import pytest

from stages.helpers.dvc_cache import previous_output
from tests.conftest import tree_bytes
from tests.warm import warm_seed


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project that has made the folder `made/out` once."""
    root = tmp_path_factory.mktemp("first") / "project"
    (root / "made").mkdir(parents=True)
    (root / "source" / "deep").mkdir(parents=True)
    (root / "source" / "a").write_text("first")
    (root / "source" / "deep" / "b").write_text("second")
    (root / "dvc.yaml").write_text("stages: {copy: {cmd: cp -r source made/out, deps: [source], outs: [made/out]}}\n")
    dvc = str(warm_seed() / "dvc")
    for command in (["git", "init", "-q"], [dvc, "init", "-q"], [dvc, "repro", "-q"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def project(first: Path, tmp_path: Path) -> Path:
    """A copy of that project, with the times of files."""
    return shutil.copytree(first, tmp_path / "project", symlinks=True)


def test_what_dvc_has_deleted_is_found_in_its_cache(project: Path) -> None:
    out = project / "made" / "out"
    with previous_output(out) as previous:
        assert previous is None  # it is there still
    before = tree_bytes(out)
    shutil.rmtree(out)
    with previous_output(out) as previous:
        assert previous is not None
        assert tree_bytes(previous) == before
    assert list((project / "made").iterdir()) == [project / "made" / ".gitignore"]
    with previous_output(project / "made" / "other") as previous:
        assert previous is None


def test_a_cache_elsewhere(project: Path, tmp_path: Path) -> None:
    shutil.move(project / ".dvc" / "cache", tmp_path / "cache")
    subprocess.run([str(warm_seed() / "dvc"), "config", "cache.dir", str(tmp_path / "cache")], cwd=project, check=True)
    shutil.rmtree(project / "made" / "out")
    with previous_output(project / "made" / "out") as previous:
        assert previous is not None
        assert (previous / "deep" / "b").read_text() == "second"


@pytest.mark.parametrize("damage", ["incomplete", "prose", "outside"])
def test_what_the_cache_holds_no_more_is_none(project: Path, damage: str) -> None:
    shutil.rmtree(project / "made" / "out")
    files = [path for path in (project / ".dvc" / "cache").rglob("*") if path.is_file()]
    (listing,) = (path for path in files if path.suffix == ".dir")
    listing.chmod(0o644)
    if damage == "incomplete":
        next(path for path in files if path.suffix != ".dir").unlink()
    elif damage == "prose":
        listing.write_text("prose")
    else:
        listing.write_text(listing.read_text().replace("deep/b", "../../b"))
    with previous_output(project / "made" / "out") as previous:
        assert previous is None


def test_outside_of_a_dvc_project(tmp_path: Path) -> None:
    with previous_output(tmp_path / "out") as previous:
        assert previous is None
    assert not list(tmp_path.iterdir())
