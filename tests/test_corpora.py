from pathlib import Path

import pytest

from pipeline.corpora import Corpus, Split, data_root, list_utterances, read_corpus
from pipeline.errors import ConfigError, CorpusError
from tests.conftest import WriteVoice

CORPORA = Path(__file__).parent.parent / "data" / "corpora.yaml"

CORPUS = Corpus(
    title="t",
    licence="l",
    speaker=r"([^/]+)/[^/]+$",
    train=Split(speech="train/*/*.wav", noise="train/*.wav", music="*.wav", rooms="simulated", babble="train/*/*.wav"),
    test=Split(speech="test/*/*.wav", noise="test/*.wav", babble="test/c/*.wav"),
)


@pytest.fixture
def audio(tmp_path: Path, write_voice: WriteVoice) -> Path:
    for split in ("train", "test"):
        for speaker in "abc":
            for number in range(2):
                write_voice(tmp_path / "speech" / split / speaker / f"{number}.wav", seconds=0.2)
    for name in ("noise/train/n.wav", "noise/test/n.wav", "music/m.wav", "simulated/room000.wav"):
        write_voice(tmp_path / name, seconds=0.2)
    return tmp_path


@pytest.mark.parametrize("name", ["demo", "speechocean762"])
def test_the_shipped_definitions_are_valid(name: str) -> None:
    corpus = read_corpus(CORPORA, name)
    assert corpus.title
    assert corpus.licence
    assert (corpus.origin.synthesis is not None) == (name == "demo")


def test_an_unknown_corpus_or_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus 'voxceleb9'; there are demo, speechocean762"):
        read_corpus(CORPORA, "voxceleb9")
    (tmp_path / "c.yaml").write_text(
        "x: {title: t, licence: l, train: {speech: '*'}, test: {speech: '*'}, colour: red}\n"
    )
    with pytest.raises(ConfigError, match=r"x: colour: unknown key"):
        read_corpus(tmp_path / "c.yaml", "x")
    (tmp_path / "c.yaml").write_text(
        "x: {title: t, licence: l, speaker: abc, train: {speech: '*'}, test: {speech: '*'}}\n"
    )
    with pytest.raises(ConfigError, match=r"speaker: speaker pattern .* needs a group"):
        read_corpus(tmp_path / "c.yaml", "x")


def test_utterances_are_sorted_and_named_below_the_patterns_fixed_part(audio: Path) -> None:
    rows = list_utterances(audio / "speech", "train/*/*.wav", r"([^/]+)/[^/]+$")
    assert [row.utterance for row in rows] == ["a/0.wav", "a/1.wav", "b/0.wav", "b/1.wav", "c/0.wav", "c/1.wav"]
    assert [row.speaker for row in rows] == list("aabbcc")
    assert rows[0].path == (audio / "speech/train/a/0.wav").as_posix()
    assert list_utterances(audio / "speech", "train/*/*.wav", None)[0].speaker is None


def test_nothing_found_is_an_error_that_says_where(audio: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        list_utterances(audio / "nowhere", "*.wav", None)
    with pytest.raises(CorpusError, match=r"nothing matches '\*\.flac'"):
        list_utterances(audio / "speech", "*.flac", None)
    with pytest.raises(CorpusError, match=r"finds nothing in 'train/a/0\.wav'"):
        list_utterances(audio / "speech", "train/*/*.wav", r"SPEAKER(\d+)")


def test_the_data_root_is_as_given_else_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_DATA", "/from/environment")
    assert data_root(CORPUS, "/given") == Path("/given")
    assert data_root(CORPUS, None) == Path("/from/environment")
    assert data_root(CORPUS.model_copy(update={"root": "below"}), None) == Path("/from/environment/below")
    monkeypatch.delenv("SEED_DATA")
    assert data_root(CORPUS, None) == Path("data/corpora")
