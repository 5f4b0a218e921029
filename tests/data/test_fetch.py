import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.data import fetch
from pipeline.data.corpora import Corpus, Origin, Split, Synthesis
from pipeline.data.fetch import fetch_corpus
from pipeline.errors import CorpusError, FetchError
from pipeline.utils.atomic import sha256_of
from tests.conftest import WriteVoice, tree_bytes


def corpus(**changes: object) -> Corpus:
    split = Split(speech="*/*.wav")
    return Corpus(title="t", licence="free", train=split, test=split, folders={"speech": "voices"}).model_copy(
        update=changes
    )


def test_recordings_are_linked_and_other_roles_are_empty_folders(tmp_path: Path, write_voice: WriteVoice) -> None:
    write_voice(tmp_path / "root/voices/a/1.wav", seconds=0.1)
    receipt = fetch_corpus("c", corpus(), tmp_path / "root", tmp_path / "out")
    assert json.loads(receipt.read_text()) == {"corpus": "c", "title": "t", "licence": "free", "origin": None}
    assert (tmp_path / "out/speech").is_symlink()
    assert (tmp_path / "out/speech/a/1.wav").is_file()
    assert not list((tmp_path / "out/noise").iterdir())
    (tmp_path / "root").rename(tmp_path / "moved")
    fetch_corpus("c", corpus(), tmp_path / "moved", tmp_path / "out")
    assert (tmp_path / "out/speech/a/1.wav").is_file()


def test_a_role_of_several_folders_and_trial_lists_are_links(tmp_path: Path, write_voice: WriteVoice) -> None:
    for name in ("one", "deep/two", "three"):
        write_voice(tmp_path / "root" / name / "1.wav", seconds=0.1)
    (tmp_path / "list.txt").write_text("1 a b\n")
    several = corpus(folders={"speech": ["one", "deep/two"]})
    fetch_corpus("c", several, tmp_path / "root", tmp_path / "out", lists={"known": tmp_path / "list.txt"})
    assert sorted(path.name for path in (tmp_path / "out/speech").iterdir()) == ["one", "two"]
    assert (tmp_path / "out/speech/two/1.wav").is_file()
    assert (tmp_path / "out/trials/known").read_text() == "1 a b\n"
    fetch_corpus("c", corpus(folders={"speech": ["three", "one"]}), tmp_path / "root", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/speech").iterdir()) == ["one", "three"]
    assert list((tmp_path / "out/trials").iterdir()) == []
    fetch_corpus("c", corpus(folders={"speech": "one"}), tmp_path / "root", tmp_path / "out")
    assert (tmp_path / "out/speech/1.wav").is_file()
    fetch_corpus("c", several, tmp_path / "root", tmp_path / "out")
    assert (tmp_path / "root/one/1.wav").is_file()
    with pytest.raises(CorpusError, match=r"no folder .*root/gone"):
        fetch_corpus("c", corpus(folders={"speech": ["one", "gone"]}), tmp_path / "root", tmp_path / "out")


def test_a_root_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no folder .*nowhere/voices\. Point SEED_DATA or data_root"):
        fetch_corpus("c", corpus(), tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out/corpus.json").exists()
    (tmp_path / "root/voices").mkdir(parents=True)
    with pytest.raises(CorpusError, match=r"for the corpus's music"):
        fetch_corpus("c", corpus(folders={"speech": "voices", "music": "tunes"}), tmp_path / "root", tmp_path / "out")


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out/speech").mkdir(parents=True)
    (tmp_path / "out/speech/mine.txt").write_text("mine")
    with pytest.raises(CorpusError, match="did not make"):
        fetch_corpus("c", corpus(), tmp_path / "root", tmp_path / "out")
    assert (tmp_path / "out/speech/mine.txt").read_text() == "mine"


@pytest.fixture
def served(tmp_path: Path, write_voice: WriteVoice) -> Iterator[tuple[str, Path]]:
    """A corpus archive on a local server; yields its address and file."""
    write_voice(tmp_path / "made/a/1.wav", seconds=0.1)
    archive = tmp_path / "www/voices.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made/a", "a")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/voices.tar.gz", archive
    server.shutdown()
    server.server_close()


def test_a_corpus_with_an_origin_is_downloaded_verified_and_unpacked(tmp_path: Path, served: tuple[str, Path]) -> None:
    url, archive = served
    origin = Origin(url=url, sha256=sha256_of(archive))
    seen: list[str] = []
    fetch_corpus(
        "c", corpus(origin=origin), tmp_path / "root", tmp_path / "out", lambda what, done, total: seen.append(what)
    )
    assert (tmp_path / "out/speech/a/1.wav").read_bytes() == (tmp_path / "made/a/1.wav").read_bytes()
    assert {"downloading", "unpacking"} <= set(seen)


def test_an_archive_of_another_checksum_is_refused(tmp_path: Path, served: tuple[str, Path]) -> None:
    with pytest.raises(FetchError, match="sha256"):
        fetch_corpus("c", corpus(origin=Origin(url=served[0], sha256="0" * 64)), tmp_path / "root", tmp_path / "out")
    with pytest.raises(FetchError, match=r"needs origin\.sha256"):
        fetch_corpus("c", corpus(origin=Origin(url=served[0])), tmp_path / "root", tmp_path / "out")
    assert not (tmp_path / "root/voices").exists()
    assert not (tmp_path / "out/corpus.json").exists()


def test_the_demo_is_synthesised_again_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = Synthesis(train_voices=2, test_voices=2, babble_voices=1, utterances=2, background=0.0)
    demo = corpus(origin=Origin(synthesis=size))
    fetch_corpus("demo", demo, tmp_path, tmp_path / "out")
    first = tree_bytes(tmp_path / "out")
    assert {"speech", "noise", "music", "rooms", "README.txt", "corpus.json"} <= {name.split("/")[0] for name in first}
    (tmp_path / "out/speech/train").rename(tmp_path / "out/speech/lost")
    with monkeypatch.context() as patch:  # by one process of espeak-ng instead of two
        patch.setattr(fetch, "make_demo", partial(fetch.make_demo, processes=1))
        fetch_corpus("demo", demo, tmp_path, tmp_path / "out")
    assert tree_bytes(tmp_path / "out") == first


def test_simulated_rooms_are_made_once(tmp_path: Path, write_voice: WriteVoice) -> None:
    write_voice(tmp_path / "root/voices/a/1.wav", seconds=0.1)
    simulated = corpus(simulated_rooms=2, train=Split(speech="*/*.wav", rooms="simulated"))
    fetch_corpus("c", simulated, tmp_path / "root", tmp_path / "out")
    rooms = tree_bytes(tmp_path / "out/simulated")
    assert list(rooms) == ["room000.wav", "room001.wav"]
    before = (tmp_path / "out/simulated/room000.wav").stat().st_mtime_ns
    fetch_corpus("c", simulated, tmp_path / "root", tmp_path / "out")
    assert (tmp_path / "out/simulated/room000.wav").stat().st_mtime_ns == before
