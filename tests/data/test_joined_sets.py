from pathlib import Path

import pytest

from pipeline.data.joined_sets import join_lists
from pipeline.data.manifest import Utterance, read_columns, read_manifest, write_augment, write_manifest
from pipeline.errors import ManifestError

AUGMENT = ("kind", "path", "speaker", "index", "sha256")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Return the lists of two corpora with the same ids and one noise in common; the second has a test set too."""
    for corpus in ("a", "b"):
        for name in ("train", "clean"):
            rows = [Utterance(f"s{n}/0", f"{corpus}/{name}/{n}.wav", f"s{n}", 1.5, f"{corpus}{n}") for n in range(2)]
            write_manifest(tmp_path / corpus / f"{name}.csv", rows)
            sounds = [("noise", f"{corpus}/n.wav", "", "", "same"), ("babble", f"{corpus}/0.wav", "s0", "", corpus)]
            sounds += [("rooms", f"{corpus}/r.sofa", "", str(index), "rooms") for index in range(2)]
            write_augment(
                tmp_path / corpus / f"{name}.augment.csv", [dict(zip(AUGMENT, sound, strict=True)) for sound in sounds]
            )
    return {corpus: tmp_path / corpus for corpus in ("a", "b")}


def test_all_train_and_the_first_is_tested(folders: dict[str, Path], tmp_path: Path) -> None:
    assert join_lists(folders, "train", ["clean"], tmp_path / "out") == {"train": 4, "clean": 2}
    rows = read_manifest(tmp_path / "out/train.csv")
    assert [(row.utterance, row.speaker, row.corpus) for row in rows] == [
        ("s0/0", "s0", "a"),
        ("s1/0", "s1", "a"),
        ("b/s0/0", "b/s0", "b"),
        ("b/s1/0", "b/s1", "b"),
    ]
    assert rows[3].path == "b/train/1.wav"
    assert (rows[3].seconds, rows[3].sha256) == (1.5, "b1")
    sounds = read_columns(tmp_path / "out/train.augment.csv", AUGMENT)
    assert [(row["kind"], row["path"], row["speaker"]) for row in sounds if row["kind"] != "rooms"] == [
        ("noise", "a/n.wav", ""),  # the same file in both corpora is listed once
        ("babble", "a/0.wav", "s0"),
        ("babble", "b/0.wav", "b/s0"),
    ]
    assert [row["index"] for row in sounds if row["kind"] == "rooms"] == ["0", "1"]
    for name in ("clean.csv", "clean.augment.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (folders["a"] / name).read_bytes()


def test_the_lists_of_a_single_corpus_stay_as_they_are(folders: dict[str, Path], tmp_path: Path) -> None:
    join_lists({"a": folders["a"]}, "train", ["clean"], tmp_path / "out")
    for path in folders["a"].iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_missing_list_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["b"] / "train.csv").unlink()
    with pytest.raises(ManifestError, match=r"b/train\.csv: no such manifest"):
        join_lists(folders, "train", ["clean"], tmp_path / "out")
    (folders["a"] / "clean.augment.csv").unlink()
    with pytest.raises(ManifestError, match=r"clean\.augment\.csv: no such list.*seed manifest --corpus a"):
        join_lists(folders, "train", ["clean"], tmp_path / "out")
