from pathlib import Path

import pytest

from pipeline.data.manifest import Utterance, read_augment, read_manifest, write_augment, write_manifest
from pipeline.errors import ManifestError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [Utterance("a/1.wav", "x/a/1.wav", "a", 1.25, "0" * 64), Utterance('odd, "name"', "x/ü.wav")]
    write_manifest(tmp_path / "m.csv", rows)
    assert read_manifest(tmp_path / "m.csv") == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("utterance,path,path\na,b,c\n", ":1: duplicate column 'path'"),
        ("utterance,path,colour\na,b,c\n", ":1: unknown column 'colour'"),
        ("utterance\na\n", ":1: missing column 'path'"),
        ("", ":1: missing column 'utterance', 'path'"),
        ("utterance,path\n", "lists no utterances"),
        ("utterance,path\na,1.wav\nb,2.wav\na,3.wav\n", ":4: utterance 'a' is already on line 2"),
        ("utterance,path\na\n", ":2: 1 fields where the header has 2"),
        ("utterance,path\na,\n", ":2: the row has no utterance or no path"),
        ("utterance,path,seconds\na,1.wav,long\n", ":2: seconds is 'long'"),
    ],
)
def test_a_wrong_manifest_is_one_line_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes(b"utterance,path\n\xff\xfe\x00,b\n")
    with pytest.raises(ManifestError, match="not CSV text in UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_augmentation_lists_give_sources_by_kind_below_the_root(tmp_path: Path) -> None:
    write_augment(
        tmp_path / "a.csv", [{"kind": "noise", "path": "n.wav"}, {"kind": "babble", "path": "t.wav", "speaker": "s"}]
    )
    sources = read_augment(tmp_path / "a.csv", Path("root"))
    assert sources["noise"][0].path == Path("root/n.wav")
    assert sources["babble"][0].speaker == "s"
    (tmp_path / "a.csv").write_text("kind,path\nhum,n.wav\n")
    with pytest.raises(ManifestError, match=":2: unknown kind 'hum'"):
        read_augment(tmp_path / "a.csv", Path())


def test_a_manifest_in_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("utterance,path\na,a.wav\n", encoding="utf-16")
    with pytest.raises(ManifestError, match=r"m\.csv: is text in UTF-16\. Save it as UTF-8"):
        read_manifest(tmp_path / "m.csv")
