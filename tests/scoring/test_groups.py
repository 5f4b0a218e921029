from pathlib import Path

import numpy as np
import pytest

from pipeline.config.score import Score
from pipeline.data.manifest import Utterance, read_manifest, write_manifest
from pipeline.data.sets import read_labels
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.errors import CorpusError, ManifestError
from pipeline.metrics import figures
from pipeline.report import write_groups
from pipeline.scoring.condition_stores import open_condition_stores
from pipeline.scoring.evaluation import evaluate
from pipeline.scoring.groups import group_trials, label_groups
from pipeline.scoring.scorer import score_list
from tests.scoring.test_scorer import IDS, SPEAKERS, make

KNOWN = Utterances(
    ("a", "b", "c", "d"), ("s",) * 4, (2.9, 3.0, 6.0, None), ("f", "m", None, "f"), (8.0, None, 18.0, 17.5)
)


def test_utterances_fall_into_ranges() -> None:
    found = label_groups(KNOWN, {"gender": [], "age": [18.0], "duration": [3.0, 6.0]})
    told = {column: [names[number] for number in numbers] for column, (names, numbers) in found.items()}
    assert told == {
        "gender": ["f", "m", "unknown", "f"],
        "age": ["<18 years", "unknown", ">=18 years", "<18 years"],
        "duration": ["<3 s", "3-6 s", ">=6 s", "unknown"],
    }
    trials = Trials(np.array([0, 0, 1]), np.array([3, 1, 0]), None)
    names, index = found["gender"]
    assert group_trials(names, (index[trials.enrol], index[trials.test])).tolist() == ["f", "f/m", "f/m"]
    bare = Utterances(KNOWN.ids, KNOWN.speakers, (None,) * 4, (None,) * 4, (None,) * 4)
    assert label_groups(bare, {"gender": [], "age": [18.0], "duration": [3.0]}) == {}
    assert list(label_groups(KNOWN, {"age": [18.0]})) == ["age"]


def test_every_group_is_measured_by_itself(tmp_path: Path) -> None:
    make(tmp_path / "raw/clean.zarr", 1.5)
    genders = tuple("fm"[n // 12] for n in range(24))
    utterances = Utterances(tuple(IDS), tuple(SPEAKERS.values()), (1.0,) * 24, genders)
    sources = open_condition_stores({"raw": tmp_path / "raw"}, ["clean"])
    lists = {"": make_all_pairs(list(SPEAKERS.values()), 10_000, 0)}
    score = Score(bootstrap=0)
    found = evaluate(sources, lists, ["clean"], "clean", utterances, score, 0).groups
    assert list(found) == [("clean", "raw", "gender"), ("clean", "raw", "duration")]
    store = sources["raw"].stores["clean"]
    for gender, rows in (("f", range(12)), ("m", range(12, 24))):
        pairs = [(a, b) for a in rows for b in rows if a != b]
        enrol, test = np.array(pairs).T
        target = np.array([SPEAKERS[IDS[a]] == SPEAKERS[IDS[b]] for a, b in pairs])
        _, scores = score_list(store, store, Trials(enrol, test, target))
        assert found["clean", "raw", "gender"][gender]["eer"] == figures(scores, target)[0]["eer"]
    assert found["clean", "raw", "gender"]["f/m"] == {"targets": 0, "nontargets": 288}
    write_groups(tmp_path / "groups.csv", found, score.operating_points)
    lines = (tmp_path / "groups.csv").read_text().splitlines()
    assert lines[0] == "condition,system,column,group,eer,min_dcf_0.01,min_dcf_0.05,targets,nontargets"
    assert "clean,raw,gender,f/m,,,,0,288" in lines


def test_manifests_keep_what_is_known_of_speakers(tmp_path: Path) -> None:
    rows = [Utterance("a", "a.wav", "s", None, None, "f", 7.5), Utterance("b", "b.wav")]
    write_manifest(tmp_path / "m.csv", rows)
    assert read_manifest(tmp_path / "m.csv") == rows
    write_manifest(tmp_path / "m.csv", rows[1:])
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == "utterance,path,speaker,seconds,sha256"
    (tmp_path / "m.csv").write_text("utterance,path,age\na,a.wav,old\n")
    with pytest.raises(ManifestError, match=r"m.csv:2: age is 'old', not a number"):
        read_manifest(tmp_path / "m.csv")


def test_labels_come_from_files_of_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/spk2age").write_text("1 7\n\n2 30\n")
    assert read_labels({"age": "*/spk2age"}, tmp_path) == {"age": {"1": "7", "2": "30"}}
    (tmp_path / "train/spk2age").write_text("1 young\n")
    with pytest.raises(CorpusError, match=r"spk2age:1: expected `speaker age`, found '1 young'"):
        read_labels({"age": "*/spk2age"}, tmp_path)
