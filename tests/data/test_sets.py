from pathlib import Path

import pytest

from pipeline.config.extract import Extract
from pipeline.config.recipes import condition_recipe, training_recipe
from pipeline.data.corpora import Split
from pipeline.data.manifest import Utterance, read_augment, read_manifest, write_augment, write_manifest
from pipeline.data.sets import FileInspector, SetLimits, check_disjoint, limit_utterances, write_set
from pipeline.errors import CorpusError
from pipeline.utils.atomic import sha256_of
from tests.conftest import WriteVoice
from tests.data.test_corpora import CORPUS, audio

__all__ = ["audio"]  # a fixture


def test_cutting_down_keeps_the_first_speakers_and_utterances() -> None:
    rows = [Utterance(f"{s}{n}", "p", s) for s in "abc" for n in range(3)]
    assert [row.utterance for row in limit_utterances(rows, SetLimits(2, 1))] == ["a0", "b0"]
    assert [row.utterance for row in limit_utterances(rows, SetLimits(None, 2))] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert limit_utterances(rows, SetLimits()) == rows


def test_a_training_set_lists_all_it_may_be_mixed_with(audio: Path, tmp_path: Path) -> None:
    recipe = training_recipe(1, 1_000, Extract().views)
    assert write_set(CORPUS, audio, "train", "train", recipe, SetLimits(), tmp_path / "m", FileInspector()) == 6
    rows = read_manifest(tmp_path / "m" / "train.csv")
    assert rows[0].seconds == pytest.approx(0.2)
    assert rows[0].sha256 == sha256_of(audio / "speech/train/a/0.wav")
    sources = read_augment(tmp_path / "m" / "train.augment.csv", Path())
    assert {kind: len(files) for kind, files in sources.items()} == {"babble": 6, "noise": 1, "music": 1, "rooms": 1}
    assert {source.speaker for source in sources["babble"]} == set("abc")


def test_talkers_of_the_test_babble_are_in_no_test_set(audio: Path, tmp_path: Path) -> None:
    for name in ("clean", "babble5"):
        write_set(
            CORPUS, audio, "test", name, condition_recipe(name, 1, None), SetLimits(), tmp_path / "m", FileInspector()
        )
    rows = read_manifest(tmp_path / "m" / "clean.csv")
    assert {row.speaker for row in rows} == {"a", "b"}
    assert read_manifest(tmp_path / "m" / "babble5.csv") == rows
    assert (tmp_path / "m" / "clean.augment.csv").read_text() == "kind,path,speaker,index,sha256\n"
    assert {source.speaker for source in read_augment(tmp_path / "m" / "babble5.augment.csv", Path())["babble"]} == {
        "c"
    }


def test_talkers_may_have_a_folder_of_their_own(audio: Path, tmp_path: Path, write_voice: WriteVoice) -> None:
    for name in "xyz":
        write_voice(audio / f"babble/{name}.wav", seconds=0.2)
    musan = CORPUS.model_copy(
        update={"folders": {"speech": "s", "babble": "b"}, "test": Split(speech="test/*/*.wav", babble="*.wav")}
    )
    write_set(
        musan,
        audio,
        "test",
        "babble5",
        condition_recipe("babble5", 1, None),
        SetLimits(),
        tmp_path / "m",
        FileInspector(),
    )
    assert len(read_manifest(tmp_path / "m" / "babble5.csv")) == 6
    (talkers,) = read_augment(tmp_path / "m" / "babble5.augment.csv", Path()).values()
    assert [(source.path.name, source.speaker) for source in talkers] == [(f"{name}.wav", None) for name in "xyz"]


def test_a_condition_the_corpus_has_no_files_for_is_an_error(audio: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no music files"):
        write_set(
            CORPUS,
            audio,
            "test",
            "music5",
            condition_recipe("music5", 1, None),
            SetLimits(),
            tmp_path / "m",
            FileInspector(),
        )


def test_a_file_that_cannot_be_read_stays_listed(audio: Path, tmp_path: Path) -> None:
    (audio / "speech/test/a/0.wav").write_text("not audio")
    write_set(
        CORPUS, audio, "test", "clean", condition_recipe("clean", 1, None), SetLimits(), tmp_path / "m", FileInspector()
    )
    first = read_manifest(tmp_path / "m" / "clean.csv")[0]
    assert first.utterance == "a/0.wav"
    assert first.seconds is None


def test_sets_that_share_speakers_or_sounds_are_refused(tmp_path: Path) -> None:
    def lists(name: str, speaker: str, noise: str) -> None:
        write_manifest(tmp_path / f"{name}.csv", [Utterance(f"{name}1", f"{name}1.wav", speaker, 1.0, f"sha {name}")])
        row = {"kind": "noise", "path": f"{name}.wav", "speaker": "", "index": "", "sha256": noise}
        write_augment(tmp_path / f"{name}.augment.csv", [row])

    lists("train", "anna", "hum")
    lists("noise5", "bert", "buzz")
    check_disjoint(tmp_path, "train", ["noise5"])
    lists("noise0", "anna", "buzz")
    with pytest.raises(CorpusError, match="sets train and noise0 share 1 speakers, first: anna"):
        check_disjoint(tmp_path, "train", ["noise5", "noise0"])
    lists("noise0", "bert", "hum")  # the same noise under another name
    with pytest.raises(CorpusError, match="sets train and noise0 share 1 noise files, first: hum"):
        check_disjoint(tmp_path, "train", ["noise5", "noise0"])
