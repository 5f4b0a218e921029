from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from pipeline.config.score import Score, System
from pipeline.data.manifest import Utterance
from pipeline.data.trials.lists import find_lists, read_lists
from pipeline.data.trials.table import Trials
from pipeline.data.utterances import Utterances, select_utterances
from pipeline.errors import ConfigError, StoreError, TrialError, UnknownUtteranceError
from pipeline.scoring.cohort import Cohort, read_cohort
from pipeline.scoring.condition_stores import ConditionStores, open_condition_stores
from pipeline.scoring.evaluation import Outcome, evaluate, pair_utterances, usable_mask
from pipeline.scoring.sampling import read_unit_vectors
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from tests.scoring.test_scorer import IDS, SPEAKERS, make

TEXT = "".join(f"{int(SPEAKERS[a] == SPEAKERS[b])} {a} {b}\n" for a in IDS for b in IDS if a != b)
CONDITIONS = ["clean", "noise5"]
KNOWN = Utterances(tuple(IDS), tuple(SPEAKERS.values()), tuple(1.0 + n / 8 for n in range(24)))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for system, spread in (("raw", 1.2), ("seed", 0.6)):
        make(tmp_path / system / "clean.zarr", 0.2, 1)
        make(tmp_path / system / "noise5.zarr", spread, 2, failed=5 if system == "raw" else None)
    (tmp_path / "lists").mkdir()
    return {name: tmp_path / name for name in ("raw", "seed")}


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Eight speakers of eight utterances, clean and noisy, four crops each, of another mean than zero."""
    rng = np.random.default_rng(7)
    clean = np.repeat(rng.standard_normal((8, 1, 1, 8)), 8, axis=0) + 0.3 * rng.standard_normal((64, 4, 1, 8))
    values = np.concatenate([clean, clean + 0.8 * rng.standard_normal(clean.shape)], axis=2).astype(np.float32)
    names = [f"c{n}" for n in range(64)]
    made_of = {"encoder": "toy", "weights_sha256": "ab", "dim": 8}
    write_store(tmp_path / "train.zarr", names, values, np.full(64, OK, dtype=np.uint8), made_of)
    return read_cohort(
        EmbeddingStore.open(tmp_path / "train.zarr"), {name: f"k{n // 8}" for n, name in enumerate(names)}
    )


def run(
    sources: dict[str, ConditionStores],
    lists: dict[str, Trials] | None = None,
    cohort: Cohort | None = None,
    utterances: Utterances = KNOWN,
    conditions: list[str] = CONDITIONS,
    use: dict[str, Any] | None = None,
    **score: Any,
) -> Outcome:
    settings = Score.model_validate({"bootstrap": 0, "cohort": use or {}} | score)
    lists = lists or {"": pair_utterances(utterances, usable_mask(sources), settings.max_trials, 0, Path("m.csv"))}
    return evaluate(sources, lists, conditions, "clean", utterances, settings, 0, cohort)


def test_systems_are_measured_on_the_same_trials_in_every_condition(folders: dict[str, Path]) -> None:
    sources = open_condition_stores(folders, CONDITIONS)
    outcome = run(sources, bootstrap=50)
    table = outcome.table
    assert list(table) == CONDITIONS
    counts = {(metrics["targets"], metrics["nontargets"]) for row in table.values() for metrics in row.values()}
    assert counts == {(5 * 4 * 3 + 3 * 2, 23 * 22 - 66)}  # utterance 5 failed once, so it is in no trial
    raw, seed = table["noise5"]["raw"], table["noise5"]["seed"]
    assert seed["eer"] < raw["eer"]
    assert raw["eer_ci"][0] <= raw["eer"] <= raw["eer_ci"][1]
    assert "eer_difference" not in raw
    assert seed["eer_difference"] == pytest.approx(seed["eer"] - raw["eer"])
    assert seed["eer_difference_ci"][0] <= seed["eer_difference"] <= seed["eer_difference_ci"][1] < 0
    assert seed["p_value"] == pytest.approx(2 / 51)
    assert set(outcome.rocs) == set(outcome.histograms) == {(c, s) for c in CONDITIONS for s in folders}
    assert sum(outcome.histograms["clean", "raw"][1]) == 66
    assert outcome.table == run(sources, bootstrap=50).table
    assert outcome.table != run(sources, bootstrap=50, comparison="pairwise").table


def test_the_mean_over_noisy_conditions_has_an_interval_of_the_same_draws(folders: dict[str, Path]) -> None:
    make(folders["raw"] / "noise0.zarr", 1.5, 3)
    make(folders["seed"] / "noise0.zarr", 0.9, 3)
    conditions = [*CONDITIONS, "noise0"]
    outcome = run(open_condition_stores(folders, conditions), conditions=conditions, bootstrap=50)
    rows = [outcome.table[name] for name in conditions[1:]]
    mean = outcome.mean_noisy["seed"]
    assert mean["eer"] == pytest.approx((rows[0]["seed"]["eer"] + rows[1]["seed"]["eer"]) / 2)
    assert mean["eer_difference"] == pytest.approx(mean["eer"] - outcome.mean_noisy["raw"]["eer"])
    widths = [np.ptp(figures["eer_difference_ci"]) for figures in (mean, rows[0]["seed"], rows[1]["seed"])]
    assert widths[0] < widths[1] + widths[2]
    one = run(open_condition_stores(folders, CONDITIONS), bootstrap=50)
    assert one.mean_noisy["seed"]["eer_ci"] == one.table["noise5"]["seed"]["eer_ci"]
    assert run(open_condition_stores(folders, ["clean"]), conditions=["clean"]).mean_noisy == {}


def test_both_sides_may_be_noisy(folders: dict[str, Path]) -> None:
    make(folders["raw"] / "noise0.zarr", 1.5, 3)
    make(folders["seed"] / "noise0.zarr", 0.9, 3)
    conditions = [*CONDITIONS, "noise0"]
    sources = open_condition_stores(folders, conditions)
    outcome = run(sources, conditions=conditions, bootstrap=20)
    assert list(outcome.both_noisy) == conditions[1:]
    pairs = pair_utterances(KNOWN, usable_mask(sources), 10_000, 0, Path("m.csv"))
    for condition, table in outcome.both_noisy.items():  # as if the noisy utterances were all there are
        for system, folder in folders.items():
            crops = EmbeddingStore.open(folder / f"{condition}.zarr").read()[:, :, 0]
            units = (crops / np.linalg.norm(crops, axis=2, keepdims=True)).mean(axis=1)
            units /= np.linalg.norm(units, axis=1, keepdims=True)
            fpr, tpr, _ = roc_curve(pairs.target, np.sum(units[pairs.enrol] * units[pairs.test], axis=1))
            crossing = brentq(lambda x, fpr=fpr, tpr=tpr: 1 - x - np.interp(x, fpr, tpr), 0, 1)
            assert table[system]["eer"] == pytest.approx(100 * crossing, abs=0.5)
            assert table[system]["eer_ci"][0] <= table[system]["eer"] <= table[system]["eer_ci"][1]
    means = [table["seed"]["eer"] for table in outcome.both_noisy.values()]
    assert outcome.mean_both_noisy["seed"]["eer"] == pytest.approx(np.mean(means))
    assert outcome.mean_both_noisy["seed"]["p_value"] < 0.2
    without = run(sources, conditions=conditions, both_sides=False)
    assert (without.both_noisy, without.mean_both_noisy) == ({}, {})


def test_operating_points_are_those_asked_for(folders: dict[str, Path]) -> None:
    points = [{"p_target": 0.1}, {"p_target": 0.5, "c_miss": 2.0}]
    table = run(open_condition_stores(folders, ["clean"]), conditions=["clean"], operating_points=points).table
    assert [key for key in table["clean"]["raw"] if "dcf" in key] == ["min_dcf_0.1", "min_dcf_0.5_2_1"]


def test_lists_are_measured_on_the_same_trials_in_every_condition(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "lists/all.txt").write_text(TEXT)
    (tmp_path / "lists/few").write_text(f"1 {IDS[0]} {IDS[1]}\n0 {IDS[0]} {IDS[4]}\n0 {IDS[0]} {IDS[5]}\n")
    found = read_lists(find_lists(tmp_path / "lists"), IDS)
    assert {name: len(listed.trials) for name, listed in found.items()} == {"all": 24 * 23, "few": 3}
    sources = open_condition_stores(folders, CONDITIONS)
    usable = usable_mask(sources)
    trials = {name: listed.trials for name, listed in found.items()}
    lists = {name: each.keep(usable[each.enrol] & usable[each.test]) for name, each in trials.items()}
    unknown = Utterances(KNOWN.ids, (*KNOWN.speakers[:23], None), KNOWN.seconds)
    outcome = run(sources, lists, utterances=unknown, bootstrap=20)
    table = outcome.table
    assert list(table) == ["all", "few", "all/noise5", "few/noise5"]
    assert set(outcome.rocs) == {(row, system) for row in table for system in folders}
    assert {(row["raw"]["targets"], row["raw"]["nontargets"]) for name, row in table.items() if "all" in name} == {
        (5 * 4 * 3 + 3 * 2, 23 * 22 - 66)
    }
    assert table["few"]["seed"]["nontargets"] == 1
    assert table["all/noise5"]["seed"]["eer"] < table["all/noise5"]["raw"]["eer"]
    assert "eer_ci" in table["few"]["raw"]
    assert "eer_ci" not in table["all"]["raw"]  # one speaker is unknown
    assert outcome.mean_noisy == {}


def test_every_back_end_is_a_row_and_helps_where_it_should(folders: dict[str, Path], cohort: Cohort) -> None:
    lines = {
        "centred": {"of": "raw", "center": True},
        "z": {"of": "raw", "norm": "z"},
        "t": {"of": "raw", "norm": "t"},
        "s": {"of": "raw", "norm": "s"},
        "as": {"of": "raw", "norm": "as", "top": 10},
        "crops_as": {"of": "raw", "compare": "pairwise", "norm": "as", "top": 10},
        "plda": {"of": "raw", "compare": "plda"},
        "plda_as": {"of": "raw", "compare": "plda", "center": True, "norm": "as", "top": 10},
        "both": {"fuse": ["raw", "seed"]},
        "calibrated": {"of": "raw", "calibrate": "cohort"},
        "everything": {"fuse": ["plda_as", "seed"], "calibrate": "cohort", "quality": ["duration", "norm"]},
    }
    outcome = run(open_condition_stores(folders, CONDITIONS), cohort=cohort, systems=lines)
    for row in outcome.table.values():
        assert list(row) == ["raw", "seed", *lines]
        assert {name for name, figures in row.items() if "cllr" in figures} == {"calibrated", "everything"}
        # Calibration is a rising map, which changes no ranking.
        assert row["calibrated"]["eer"] == row["raw"]["eer"]
        assert len({row[name]["eer"] for name in lines}) > 3
    assert outcome.table["clean"]["calibrated"]["cllr"] < 1
    noisy = outcome.table["noise5"]
    assert noisy["seed"]["eer"] <= noisy["both"]["eer"] < noisy["raw"]["eer"]


def test_s_norm_is_that_of_a_plain_loop(folders: dict[str, Path], cohort: Cohort) -> None:
    def unit(values: Any) -> Any:
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    stores = [EmbeddingStore.open(folders["seed"] / f"{name}.zarr") for name in CONDITIONS]
    enrol, test, others = (
        unit(unit(values[:, :, 0].astype(np.float64)).mean(axis=1))
        for values in (*(store.read() for store in stores), cohort.values)
    )
    target, scores = [], []
    for a in range(24):
        for b in range(24):
            if a != b:
                ranked = [np.sort(others @ side)[-10:] for side in (enrol[a], test[b])]
                score = enrol[a] @ test[b]
                scores.append(sum((score - top.mean()) / top.std() for top in ranked) / 2)
                target.append(SPEAKERS[IDS[a]] == SPEAKERS[IDS[b]])
    sources = open_condition_stores({"seed": folders["seed"]}, CONDITIONS)
    outcome = run(sources, cohort=cohort, systems={"as": {"of": "seed", "norm": "as", "top": 10}})
    edges, hits, _ = outcome.histograms["noise5", "as"]
    expected = np.histogram(np.array(scores)[target], edges)[0]
    assert np.abs(hits - expected).sum() <= 2  # a score on the edge of a bin
    assert (edges[0], edges[-1]) == pytest.approx((min(scores), max(scores)), abs=1e-3)


def test_a_list_that_calibrates_is_not_measured(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "lists/dev").write_text(TEXT)
    (tmp_path / "lists/eval").write_text(TEXT)
    lists = {name: found.trials for name, found in read_lists(find_lists(tmp_path / "lists"), IDS).items()}
    sources = open_condition_stores({"seed": folders["seed"]}, CONDITIONS)
    outcome = run(sources, lists, systems={"llr": {"of": "seed", "calibrate": "dev"}})
    assert list(outcome.table) == ["eval", "eval/noise5"]
    figures = outcome.table["eval"]["llr"]
    assert figures["min_cllr"] <= figures["cllr"] < figures["min_cllr"] + 0.1
    assert outcome.warnings == ["trial list dev: calibrates, but shares 6 speakers with those measured."]
    with pytest.raises(ConfigError, match="none is left to measure"):
        run(sources, {"dev": lists["dev"]}, systems={"llr": {"of": "seed", "calibrate": "dev"}})


def test_a_cohort_that_is_in_the_trials_is_told(folders: dict[str, Path], cohort: Cohort) -> None:
    mixed = Cohort(
        cohort.path, cohort.encoder, cohort.values, (IDS[0], *cohort.utterances[1:]), ("s3", *cohort.speakers[1:])
    )
    sources = open_condition_stores(folders, ["clean"])
    assert run(sources, cohort=cohort, conditions=["clean"]).warnings == []
    (warning,) = run(sources, cohort=mixed, conditions=["clean"]).warnings
    assert "1 utterances and 1 speakers of the cohort are in the trials" in warning


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"of": "other"}, "of 'other': there are only raw, seed"),
        ({"of": "raw", "norm": "s"}, "needs a cohort. Give its store with --cohort"),
        ({"of": "raw", "calibrate": "cohort"}, "needs a cohort"),
        ({"of": "raw", "calibrate": "dev"}, "no list 'dev' to calibrate on. Choose from cohort"),
        ({"fuse": ["raw", "x"]}, "cannot fuse 'x'. Choose from raw, seed"),
        ({"of": "raw", "ensemble": 0.5}, "ensemble needs enhanced vectors"),
    ],
)
def test_systems_that_cannot_be_are_one_line(folders: dict[str, Path], line: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(
            open_condition_stores(folders, CONDITIONS),
            systems={"x": line} | ({"y": {"of": "raw"}} if "fuse" in line else {}),
        )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({}, "is `of` one system's vectors"),
        ({"of": "raw", "fuse": ["raw", "seed"]}, "or must `fuse`"),
        ({"fuse": ["raw", "raw"]}, "each once"),
        ({"fuse": ["raw", "seed"], "norm": "s"}, "belong to the systems that are fused"),
        ({"of": "raw", "quality": ["norm"]}, "quality needs calibrate"),
        ({"of": "seed", "lengths": "own"}, "lengths belongs to an ensemble"),
    ],
)
def test_lines_that_contradict_themselves_are_refused(line: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        System.model_validate(line)


def test_a_cohort_is_of_the_tested_corpus(cohort: Cohort) -> None:
    store = EmbeddingStore.open(cast(Path, cohort.path))
    corpora = {name: "a" if row < 40 else "b" for row, name in enumerate(cohort.utterances)}
    assert read_cohort(store, {}, corpora).utterances == cohort.utterances[:40]
    assert read_cohort(store, {}, dict.fromkeys(corpora)).utterances == cohort.utterances


def test_a_cohort_of_another_encoder_is_refused(folders: dict[str, Path], cohort: Cohort) -> None:
    other = Cohort(cohort.path, {**cohort.encoder, "dim": 16}, cohort.values, cohort.utterances, cohort.speakers)
    with pytest.raises(StoreError, match=r"train.zarr: encoder dim is 16, but 8 in .*clean.zarr"):
        run(open_condition_stores(folders, CONDITIONS), cohort=other, systems={"x": {"of": "raw", "center": True}})


def test_vectors_of_zeros_are_named_by_store_and_id(folders: dict[str, Path], tmp_path: Path) -> None:
    values = np.ones((24, 3, 2, 8), dtype=np.float32)
    values[[4, 7], 1, 0] = 0
    attributes = {"encoder": "toy", "weights_sha256": "ab", "dim": 8}
    for path in (folders["raw"] / "noise5.zarr", tmp_path / "train.zarr"):
        write_store(path, IDS, values, np.full(24, OK, np.uint8), attributes)
    says = (
        r"%s\.zarr: 2 of 24 utterances have a vector of zeros, .* first: s1/0, s1/3\. Import it again with --skip zeros"
    )
    with pytest.raises(StoreError, match=says % "raw/noise5"):
        run(open_condition_stores(folders, CONDITIONS))
    with pytest.raises(StoreError, match=says % "train"):
        read_cohort(EmbeddingStore.open(tmp_path / "train.zarr"), {})
    with pytest.raises(StoreError, match=r"1 of 2 utterances .* first: s1/0"):
        read_unit_vectors(EmbeddingStore.open(tmp_path / "train.zarr"), np.array([3, 4]))


def test_more_of_the_cohort_than_there_is_cannot_count(folders: dict[str, Path], cohort: Cohort) -> None:
    sources = open_condition_stores(folders, CONDITIONS)
    with pytest.raises(ConfigError, match="top 300 of a cohort of 64"):
        run(sources, cohort=cohort, systems={"as": {"of": "raw", "norm": "as"}})
    with pytest.raises(ConfigError, match="top 300 of a cohort of 8"):
        run(sources, cohort=cohort, systems={"as": {"of": "raw", "norm": "as"}}, use={"of": "speakers"})


def test_unknown_durations_and_speakers_are_told(folders: dict[str, Path], cohort: Cohort) -> None:
    bare = Utterances(KNOWN.ids, KNOWN.speakers, (None,) * 24)
    sources = open_condition_stores(folders, CONDITIONS)
    line = {"of": "raw", "calibrate": "cohort", "quality": ["duration"]}
    with pytest.raises(TrialError, match="quality duration needs the seconds of all"):
        run(sources, cohort=cohort, utterances=bare, systems={"x": line})
    with pytest.raises(TrialError, match=r"has no speaker\. Add the speaker column"):
        run(sources, utterances=Utterances(KNOWN.ids, (None,) * 24, KNOWN.seconds))
    with pytest.raises(UnknownUtteranceError, match="has no utterance 's0/0'"):
        select_utterances(IDS, [Utterance("x", "x.wav")], Path("m.csv"))
    with pytest.raises(
        UnknownUtteranceError, match=r"'s0/0', .* The manifest holds 'S0\\\\0': they differ in sep.* and in"
    ):
        select_utterances(IDS, [Utterance("S0\\0", "x.wav")], Path("m.csv"))


def test_systems_of_other_utterances_or_mixed_spaces_are_errors(folders: dict[str, Path], tmp_path: Path) -> None:
    values = np.ones((2, 1, 1, 8), dtype=np.float32)
    write_store(tmp_path / "few/clean.zarr", ["a", "b"], values, np.full(2, OK, dtype=np.uint8), {"dim": 8})
    with pytest.raises(StoreError, match="hold different utterances"):
        open_condition_stores({"raw": folders["raw"], "few": tmp_path / "few"}, ["clean"])
    for name, manifest in (("old", "ab"), ("new", "cd")):
        make(tmp_path / name / "clean.zarr", 0.1, manifest_sha256=manifest)
    with pytest.raises(StoreError, match="differ in manifest: they are not of the same audio"):
        open_condition_stores({name: tmp_path / name for name in ("old", "new")}, ["clean"])
    make(tmp_path / "mixed/clean.zarr", 0.1)
    make(tmp_path / "mixed/noise5.zarr", 0.1, enhanced_by_sha256="ef", timestep=50)
    with pytest.raises(StoreError, match="cannot be compared"):
        open_condition_stores({"mixed": tmp_path / "mixed"}, CONDITIONS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{IDS[0]} {IDS[1]}\n", "lists/t: the list has no labels"),
        (f"1 {IDS[0]} {IDS[1]}\n0 {IDS[0]} nobody\n", r"first: nobody \(.*lists/t:2\)"),
    ],
)
def test_lists_that_cannot_be_measured_are_errors(
    tmp_path: Path, folders: dict[str, Path], text: str, says: str
) -> None:
    assert find_lists(tmp_path / "lists") == {}
    (tmp_path / "lists/t").write_text(text)
    with pytest.raises((TrialError, UnknownUtteranceError), match=says):
        read_lists(find_lists(tmp_path / "lists"), IDS)
