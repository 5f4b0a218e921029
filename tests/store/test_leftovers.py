import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import OutputError
from pipeline.store.journal import journal_of
from pipeline.store.leftovers import discard_copy, find_leftovers, remove_leftover
from pipeline.store.schema import OK
from pipeline.store.writer import StoreWriter
from pipeline.training.checkpoints import describe_checkpoint
from tests.conftest import tree_bytes

IDS = ["a", "b", "c"]
RECIPE = {"recipe": {"views": [{"name": "clean"}, {"name": "noise"}]}, "encoder": "ge2e"}


def begun(out: Path, seed: int = 0) -> StoreWriter:
    """A store of three utterances of which one is written."""
    writer = StoreWriter(out, IDS, (1, 1, 4), {"seed": seed, **RECIPE}, 1)
    writer.write(range(1), np.ones((1, 1, 1, 4), np.float32), np.array([OK], np.uint8))
    return writer


def test_an_unfinished_store_is_described_and_removed(tmp_path: Path) -> None:
    out = tmp_path / "ge2e" / "train.zarr"
    for seed in (0, 1):
        begun(out, seed).close()
    found, busy = find_leftovers(tmp_path, describe_checkpoint)
    assert not busy
    assert [leftover.what for leftover in found] == ["1 of 3 utterances, ge2e, clean, noise"] * 2
    assert found[0].size == sum(path.stat().st_size for path in found[0].folder.rglob("*") if path.is_file())
    remove_leftover(found[0])
    assert find_leftovers(tmp_path, describe_checkpoint)[0] == found[1:]  # which is as it was
    remove_leftover(found[1])
    assert list((tmp_path / "ge2e").iterdir()) == []


def test_a_journal_in_use_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    with closing(begun(out)):
        assert find_leftovers(tmp_path, describe_checkpoint) == ([], [journal_of(out)])
    (found,), _ = find_leftovers(tmp_path, describe_checkpoint)
    with closing(begun(out)), pytest.raises(OutputError, match="another process"):
        remove_leftover(found)
    assert found.folder.is_dir()


def test_what_a_killed_move_left(tmp_path: Path) -> None:
    old = tmp_path / ".s.zarr.old.abcd1234"
    (old / "old").mkdir(parents=True)
    (found,), _ = find_leftovers(tmp_path, describe_checkpoint)
    remove_leftover(found)
    assert not old.exists()


def test_a_damaged_journal_can_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / ".s.zarr.journal" / "0123"
    folder.mkdir(parents=True)
    (found,), _ = find_leftovers(tmp_path, describe_checkpoint)
    assert found.what == "nothing of use"
    remove_leftover(found)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_of_a_finished_store_goes_when_it_is_saved(tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    writer = begun(out)
    for row in (1, 2):
        writer.write(range(row, row + 1), np.ones((1, 1, 1, 4), np.float32), np.array([OK], np.uint8))
    writer.finish(keep=True)
    (found,), _ = find_leftovers(tmp_path, describe_checkpoint)
    assert found.what == "3 of 3 utterances, ge2e, clean, noise, finished: kept until DVC has it in its cache"
    before = tree_bytes(out)
    assert (out / "zarr.json").samefile(found.folder / "store.zarr" / "zarr.json")  # it takes no more of the disk
    shutil.rmtree(out)
    with closing(begun(out)) as again:
        assert (again.status() == OK).all()
        again.finish(keep=True)
    assert tree_bytes(out) == before
    discard_copy(out, b"that of another store")
    assert journal_of(out).is_dir()
    discard_copy(out, (out / "zarr.json").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_without_hard_links_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("no links here")

    writer = begun(tmp_path / "s.zarr")
    for row in (1, 2):
        writer.write(range(row, row + 1), np.ones((1, 1, 1, 4), np.float32), np.array([OK], np.uint8))
    monkeypatch.setattr("os.link", refused)  # not before: Zarr makes its files by links
    writer.finish(keep=True)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]
