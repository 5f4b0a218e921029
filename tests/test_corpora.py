from pathlib import Path

import pytest

from pipeline.augment.recipe import condition_recipe, training_recipe
from pipeline.corpora import Corpus, Cut, Describer, Split, cut_down, data_root, list_utterances, read_corpus, write_set
from pipeline.errors import ConfigError, CorpusError
from pipeline.files import sha256_of
from pipeline.manifest import Utterance, read_augment, read_manifest
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
    with pytest.raises(ConfigError, match=r"speaker: needs a group"):
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


def test_cutting_down_keeps_the_first_speakers_and_utterances() -> None:
    rows = [Utterance(f"{s}{n}", "p", s) for s in "abc" for n in range(3)]
    assert [row.utterance for row in cut_down(rows, Cut(2, 1))] == ["a0", "b0"]
    assert [row.utterance for row in cut_down(rows, Cut(None, 2))] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert cut_down(rows, Cut()) == rows


def test_a_training_set_lists_all_it_may_be_mixed_with(audio: Path, tmp_path: Path) -> None:
    recipe = training_recipe(1, 1_000, (0, 15), (5, 15), 0.3)
    assert write_set(CORPUS, audio, "train", "train", recipe, Cut(), tmp_path / "m", Describer()) == 6
    rows = read_manifest(tmp_path / "m" / "train.csv")
    assert rows[0].seconds == pytest.approx(0.2)
    assert rows[0].sha256 == sha256_of(audio / "speech/train/a/0.wav")
    sources = read_augment(tmp_path / "m" / "train.augment.csv", Path())
    assert {kind: len(files) for kind, files in sources.items()} == {"babble": 6, "noise": 1, "music": 1, "rooms": 1}
    assert {source.speaker for source in sources["babble"]} == set("abc")


def test_talkers_of_the_test_babble_are_in_no_test_set(audio: Path, tmp_path: Path) -> None:
    for name in ("clean", "babble5"):
        write_set(CORPUS, audio, "test", name, condition_recipe(name, 1, None), Cut(), tmp_path / "m", Describer())
    rows = read_manifest(tmp_path / "m" / "clean.csv")
    assert {row.speaker for row in rows} == {"a", "b"}
    assert read_manifest(tmp_path / "m" / "babble5.csv") == rows
    assert (tmp_path / "m" / "clean.augment.csv").read_text() == "kind,path,speaker,sha256\n"
    assert {source.speaker for source in read_augment(tmp_path / "m" / "babble5.augment.csv", Path())["babble"]} == {
        "c"
    }


def test_a_condition_the_corpus_has_no_files_for_is_an_error(audio: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no music files"):
        write_set(
            CORPUS, audio, "test", "music5", condition_recipe("music5", 1, None), Cut(), tmp_path / "m", Describer()
        )


def test_a_file_that_cannot_be_read_stays_listed(audio: Path, tmp_path: Path) -> None:
    (audio / "speech/test/a/0.wav").write_text("not audio")
    write_set(CORPUS, audio, "test", "clean", condition_recipe("clean", 1, None), Cut(), tmp_path / "m", Describer())
    first = read_manifest(tmp_path / "m" / "clean.csv")[0]
    assert first.utterance == "a/0.wav"
    assert first.seconds is None


def test_the_data_root_is_as_given_else_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_DATA", "/from/environment")
    assert data_root(CORPUS, "/given") == Path("/given")
    assert data_root(CORPUS, None) == Path("/from/environment")
    assert data_root(CORPUS.model_copy(update={"root": "below"}), None) == Path("/from/environment/below")
    monkeypatch.delenv("SEED_DATA")
    assert data_root(CORPUS, None) == Path("data/corpora")
