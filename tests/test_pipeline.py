"""The real commands from end to end: on a cut-down demo under DVC, and by hand on real recordings."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from stages.cli import main
from tests.project import CONDITIONS, ENDURANCE, PROJECT, FirstRun, Project

FIGURES = {"eer", "eer_ci", "eer_rocch", "min_dcf_0.01", "min_dcf_0.05", "min_cllr", "targets", "nontargets"}


def extracts(*names: str) -> list[str]:
    return [f"extract@ge2e-{name}" for name in names]


@pytest.mark.slow
def test_dvc_repro_reruns_what_changed_and_nothing_else(first_run: FirstRun, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", first_run.folder)
    enhanced = [f"enhance@ge2e-{name}" for name in CONDITIONS]
    after_training = [*enhanced, "score@ge2e", "report"]
    lists = ["manifest@mini", "join"]
    whole = ["fetch@mini", *lists, *extracts("train", *CONDITIONS), "check@ge2e", "train@ge2e", *after_training]

    assert sorted(first_run.stages) == sorted(whole)
    check_results(project.folder)
    first = (project.folder / "results/metrics.json").read_bytes()
    # That nothing reruns without a change, and what a change of `train` reruns, tests/docs/test_documented.py looks at.
    project.change("score", bootstrap=10)
    assert project.changed() == ["score@ge2e", "report"]
    project.change("quality", max_failed=0.5)
    assert project.changed() == ["check@ge2e", "score@ge2e", "report"]
    project.change("quality", max_failed=0.05)
    project.change("extract", workers=0)
    assert project.changed() == ["score@ge2e", "report"]

    voice = sorted((project.folder / "data/audio/mini/speech/train").iterdir())[0]
    shutil.copy(sorted(voice.iterdir())[0], voice / "99.flac")
    assert project.repro("dvc", "repro", "join") == lists
    assert project.changed() == [*extracts("train"), "check@ge2e", "train@ge2e", "score@ge2e", "report"]

    tester = sorted((project.folder / "data/audio/mini/speech/test").iterdir())[0]
    shutil.copy(sorted(tester.iterdir())[0], tester / "99.flac")
    (voice / "99.flac").unlink()
    assert project.repro("dvc", "repro", "join") == lists
    assert [name for name in project.changed() if name.startswith("extract")] == extracts(*CONDITIONS)

    (tester / "99.flac").unlink()
    project.change("score", bootstrap=20)
    assert project.repro() == []  # the run cache knows these inputs
    assert (project.folder / "results/metrics.json").read_bytes() == first


@pytest.mark.slow
@pytest.mark.endurance
@pytest.mark.skipif(not ENDURANCE, reason="tests what DVC does: make endurance")
def test_experiments_are_queued(tmp_path: Path) -> None:
    """As docs/training.md has it; that an experiment runs, tests/docs/test_documented.py looks at."""
    project = Project(tmp_path / "project")
    project.call("git", "add", "-A")
    project.call("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "project")
    said = project.call("dvc", "exp", "run", "--queue", "-S", "train.objective=seed,dae", "-S", "seed=1")
    names = re.findall(r"Queued experiment '(.+)'", said)
    assert [f"train.objective={objective}', 'seed=1'" in said for objective in ("seed", "dae")] == [True, True]
    status = project.call("dvc", "queue", "status")
    assert re.findall(r"^\w+ +(\S+) .* Queued *$", status, re.MULTILINE) == names
    assert len(names) == 2
    project.call("dvc", "queue", "remove", "--all")
    assert "No experiment tasks in the queue" in project.call("dvc", "queue", "status")
    assert project.call("git", "status", "--short") == ""


def check_results(folder: Path) -> None:
    """Every promised artefact is there, and the numbers are what real ones look like."""
    metrics = json.loads((folder / "results/metrics.json").read_text())
    assert list(metrics) == ["ge2e"]
    results = metrics["ge2e"]["results"]
    assert list(results) == CONDITIONS
    for condition, systems in results.items():
        assert list(systems) == ["raw", "seed"]
        assert {"eer_difference", "eer_difference_ci", "p_value"} == set(systems["seed"]) - set(systems["raw"])
        for system in systems.values():
            assert set(system) >= FIGURES
            assert (system["targets"], system["nontargets"]) == (6 * 3 * 2, 18 * 15)
            assert 0 <= system["eer"] < 50
            assert 0 <= system["min_dcf_0.01"] <= 1, condition
    assert results["noise0"]["raw"]["eer"] > results["clean"]["raw"]["eer"]
    report = (folder / "results/report.md").read_text()
    assert "synthetic voices" in report
    assert "| mean noisy |" in report
    assert "| view | distance to clean, median | cosine to clean, median |" in report
    page = (folder / "results/report.html").read_text()
    assert page.count("data-plot=") == 7  # every plot has its data
    assert (folder / "results/quality/ge2e/quality.png").exists()
    curve = list(csv.DictReader((folder / "models/ge2e/curve.csv").open()))
    assert [row["epoch"] for row in curve] == ["0", "1", "2", "3", "4"]
    det = list(csv.DictReader((folder / "results/scores/ge2e/det.csv").open()))
    assert {row["condition"] for row in det} == set(CONDITIONS)


@pytest.mark.slow
@pytest.mark.corpora
def test_the_stages_by_hand_on_twelve_real_speakers(
    tmp_path: Path, real_corpora: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Extract, train, enhance and score real recordings with paths given by hand, without DVC and parameter file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEED_DATA", str(real_corpora))

    def seed(*arguments: object) -> str:
        main(list(map(str, arguments)))  # in this process, which spares the start of torch
        return capsys.readouterr().out

    conditions = ["clean", "noise5"]
    (tmp_path / "p.yaml").write_text(
        f"corpus: speechocean762\nconditions: [{', '.join(conditions)}]\nsets: [train, {', '.join(conditions)}]\n"
        "manifest: {max_speakers: 12, max_utterances: 2}\nextract: {draws: 1, eval_crops: 1, eval_frames: 300}\n"
        "train: {max_epochs: 20}\nscore: {bootstrap: 20}\n"
    )
    corpora = tmp_path / "corpora.yaml"
    corpora.write_text(
        (PROJECT / "data/corpora.yaml").read_text().replace("simulated_rooms: 200", "simulated_rooms: 5")
    )
    common = ["--params", "p.yaml"]
    seed("fetch", "--corpora", corpora, "--out", "audio", *common)
    seed("manifest", "--corpora", corpora, "--corpus", "speechocean762", "--audio", "audio", "--out", "lists", *common)
    for name in ("train", *conditions):
        lists = ["--manifest", f"lists/{name}.csv", "--augment", f"lists/{name}.augment.csv"]
        out = seed("extract", *lists, "--set", name, "--encoder", "ge2e", "--out", f"raw/{name}.zarr", *common)
        assert "24 utterances" in out
    seed("train", "--store", "raw/train.zarr", "--manifest", "lists/train.csv", "--out", "m.safetensors", *common)
    for name in conditions:
        stores = ["--store", f"raw/{name}.zarr", "--adapt", "raw/clean.zarr", "--out", f"seed/{name}.zarr"]
        seed("enhance", *stores, "--model", "m.safetensors", *common)
    systems = ["--system", "raw=raw", "--system", "seed=seed"]
    seed("score", *systems, "--manifest", "lists/clean.csv", "--out", "scores/ge2e", *common)
    table = seed("report", "--results", "scores", "--corpora", corpora, "--out", "results", *common)
    assert "mean noisy" in table

    metrics = json.loads((tmp_path / "results/metrics.json").read_text())["ge2e"]["results"]
    for systems_of in metrics.values():
        assert systems_of["raw"]["targets"] == 12 * 2 * 1
        assert systems_of["raw"]["eer"] < 40
    # Real noise does harm, and even a model of 12 speakers takes some of it back.
    assert metrics["noise5"]["raw"]["eer"] > 1.5 * metrics["clean"]["raw"]["eer"]
    noisy = [metrics["noise5"][system]["eer"] for system in ("raw", "seed")]
    assert noisy[1] < noisy[0]

    lines = [f"{int(a == b)} {a}/{n} {b}/{m}" for a, n, b, m in some_trials(tmp_path / "lists/clean.csv")]
    (tmp_path / "trials.txt").write_text("\n".join(lines))
    sides = ["--enrol", "raw/clean.zarr", "--test", "raw/noise5.zarr", "--trials", "trials.txt"]
    assert "EER" in seed("score", *sides, "--out", "list")
    assert len((tmp_path / "list/scores.csv").read_text().splitlines()) == len(lines) + 1


def some_trials(manifest: Path) -> list[tuple[str, str, str, str]]:
    ids = [tuple(row["utterance"].split("/")) for row in csv.DictReader(manifest.open())][:12]
    return [(*left, *right) for left in ids for right in ids if left != right]  # type: ignore[misc]
