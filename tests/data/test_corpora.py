from pathlib import Path

import pytest

from pipeline.data.corpora import Corpus, Split, find_data_root, read_corpora, read_corpus
from pipeline.data.corpus_files import list_utterances
from pipeline.data.inventory import count_published_files, list_split_patterns
from pipeline.errors import ConfigError, CorpusError
from tests.conftest import WriteVoice

CORPORA = Path(__file__).parents[2] / "data" / "corpora.yaml"

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


def test_the_shipped_definitions_are_valid() -> None:
    corpora = read_corpora(CORPORA)
    whole = [name for name, corpus in corpora.items() if corpus.train]
    assert whole == ["demo", "speechocean762", "commands", "arabic", "paper"]
    lists = [name for corpus in corpora.values() for name in corpus.lists]
    assert len(set(lists)) == len(lists)
    for name, corpus in corpora.items():
        assert corpus.title
        assert corpus.licence
        assert (corpus.origin.synthesis is not None) == (name == "demo")
        assert set(corpus.parts) <= set(corpora)
        assert set(corpus.trials) <= set(lists)


def test_the_parts_of_the_paper_say_how_many_of_its_files_there_are() -> None:
    corpora = read_corpora(CORPORA)
    published = count_published_files(corpora, "paper")
    for split, roles in (("train", ("speech", "noise", "music", "rooms", "babble")), ("test", ("speech",))):
        for role in roles:
            patterns = list_split_patterns(corpora["paper"], split, role)
            assert set(patterns) <= set(published), patterns


@pytest.mark.parametrize(
    ("path", "speaker"),
    [
        ("LibriTTS_R/train-clean-100/19/198/19_198_000000_000000.wav", "19"),
        ("Libri-Light/small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb.flac", "100"),
        ("voxceleb1/dev/wav/id10001/1zcIwhmdeo4/00001.wav", "id10001"),
        ("voxceleb2/dev/wav/id00012/21Uxsk56VDQ/00001.wav", "id00012"),
        ("VoxSRC2023_val/00000.wav", None),
        ("voxconverse_test_SV/aepyx/aepyx_00001.wav", None),
    ],
)
def test_speakers_of_the_paper_are_read_where_paths_name_them(tmp_path: Path, path: str, speaker: str | None) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    rows = list_utterances(tmp_path, path, read_corpus(CORPORA, "paper").speaker)
    assert [row.speaker for row in rows] == [speaker]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("folders: {speech: [a/wav, b/wav]}", "folders of speech must end in different names"),
        ("train: {speech: '*'}", "give both train and test, or neither"),
        ("lists: {noise5: {path: p, source: s}}", "list 'noise5': use .* not the name of a condition"),
        ("lists: {'a b': {path: p, source: s}}", "list 'a b': use letters"),
        ("lists: {a: {path: p}}", "lists.a.source: Field required"),
    ],
)
def test_a_definition_that_will_not_do_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "c.yaml").write_text(f"x:\n  title: t\n  licence: l\n  {text}\n")
    with pytest.raises(ConfigError, match=says):
        read_corpus(tmp_path / "c.yaml", "x")


def test_an_unknown_corpus_or_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus 'voxceleb9'; there are arabic, commands, demo, libri-light, "):
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


def test_several_patterns_name_utterances_each_below_its_own_fixed_part(audio: Path) -> None:
    patterns = ["train/a/*.wav", "train/b/0.wav", "test/*/1.wav", "test/a/*.wav"]
    rows = list_utterances(audio / "speech", patterns[2:], None)
    assert [(row.utterance, Path(row.path).parent.name) for row in rows] == [
        ("0.wav", "a"),
        ("1.wav", "a"),  # named by the last pattern that finds it
        ("b/1.wav", "b"),
        ("c/1.wav", "c"),
    ]
    with pytest.raises(CorpusError, match=r"train/b/0.wav and .*train/a/0.wav are both utterance '0.wav'"):
        list_utterances(audio / "speech", patterns[:2], None)
    with pytest.raises(CorpusError, match=r"nothing matches 'none/\*'"):
        list_utterances(audio / "speech", ["train/*/*.wav", "none/*"], None)


def test_nothing_found_is_an_error_that_says_where(audio: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        list_utterances(audio / "nowhere", "*.wav", None)
    with pytest.raises(CorpusError, match=r"nothing matches '\*\.flac'"):
        list_utterances(audio / "speech", "*.flac", None)
    with pytest.raises(CorpusError, match=r"does not match 'train/a/0\.wav'"):
        list_utterances(audio / "speech", "train/*/*.wav", r"SPEAKER(\d+)")


def test_the_data_root_is_as_given_else_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_DATA", "/from/environment")
    assert find_data_root(CORPUS, "/given") == Path("/given")
    assert find_data_root(CORPUS, None) == Path("/from/environment")
    assert find_data_root(CORPUS.model_copy(update={"root": "below"}), None) == Path("/from/environment/below")
    monkeypatch.delenv("SEED_DATA")
    assert find_data_root(CORPUS, None) == Path("data/corpora")
