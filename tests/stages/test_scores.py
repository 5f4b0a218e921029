"""`seed metrics` and `seed compare`."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.metrics import eer, roc_of
from stages.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as left:
        code = int(left.code or 0)
    return code, *capsys.readouterr()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with scores of two systems on all pairs of 12 speakers' utterances, in several forms."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ids = [f"s{n // 3}/{n % 3}" for n in range(36)]
    hardness = rng.normal(size=12)
    lists: dict[str, list[str]] = {name: [] for name in ("trials", "raw", "seed", "bare", "labelled")}
    for n, enrol in enumerate(ids):
        for m, test in enumerate(ids):
            if n == m:
                continue
            same = n // 3 == m // 3
            raw = rng.normal() + hardness[n // 3] + 1.5 * same
            seed = raw + 0.8 * same
            lists["trials"].append(f"{int(same)} {enrol} {test}")
            lists["raw"].append(f"{enrol} {test} {raw:.4f}")
            lists["seed"].insert(0, f"{enrol} {test} {seed:.4f}")  # in another order
            lists["bare"].append(f"{raw:.4f} {int(same)}")
            lists["labelled"].append(f"{int(same)} {enrol} {test} {raw:.4f}")
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "speakers.txt").write_text("".join(f"{name} {name[:-2]}\n" for name in ids))
    (tmp_path / "m.csv").write_text(
        "utterance,path,speaker\n" + "".join(f"{name},{name}.wav,{name[:-2]}\n" for name in ids)
    )
    (tmp_path / "gender.txt").write_text("".join(f"{name} {'fm'[int(name[1:-2]) % 2]}\n" for name in ids))
    return tmp_path


def expected(place: Path) -> float:
    rows = np.loadtxt(place / "bare.txt")
    return 100 * eer(roc_of(rows[:, 0], rows[:, 1] == 1))


def test_all_forms_give_the_same_figures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [
        run(capsys, "metrics", "raw.txt", "--trials", "trials.txt"),
        run(capsys, "metrics", "bare.txt"),
        run(capsys, "metrics", "labelled.txt"),
    ]
    assert all(code == 0 for code, *_ in outputs)
    texts = [out for _, out, _ in outputs]
    assert texts[0] == texts[1] == texts[2]
    assert f"EER {expected(place):.2f} % at " in texts[0]
    assert "No intervals: the bootstrap needs speakers" in texts[0]
    assert "72 target and 1,188 non-target trials" in texts[0]
    assert "Cllr" not in texts[0].replace("minCllr", "")
    assert "actDCF" not in texts[0]


def test_metrics_writes_flat_figures_a_curve_and_a_histogram(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--speakers", "speakers.txt", "--bootstrap", 50, "--calibrated", "--far", 5, "--groups", "gender.txt"]
    code, out, _ = run(capsys, "metrics", "labelled.txt", *options, "--out", "result")
    assert code == 0
    assert "No intervals" not in out
    written = json.loads((place / "result" / "metrics.json").read_text())
    figures, protocol = written["results"], written["protocol"]
    assert protocol["scores"]["scores"]["file"] == "labelled.txt"
    assert protocol["speakers"]["sha256"] == hashlib.sha256((place / "speakers.txt").read_bytes()).hexdigest()
    assert (protocol["bootstrap"], protocol["seed"], protocol["calibrated"]) == (50, 0, True)
    assert protocol["operating_points"][0] == {"p_target": 0.01, "c_miss": 1, "c_fa": 1}
    assert str(place) not in json.dumps(protocol)
    low, high = figures["eer_ci"]
    assert low < figures["eer"] < high
    assert figures["eer"] == pytest.approx(expected(place))
    assert f"EER {figures['eer']:.2f} % [{low:.2f}, {high:.2f}]" in out
    assert figures["min_cllr"] < figures["cllr"]
    assert figures["min_dcf_0.01"] <= figures["act_dcf_0.01"]
    assert "actDCF" in out
    assert f"FRR {figures['frr_at_far_5']:.2f} % at FAR 5 %" in out
    assert list(figures["groups"]) == ["f", "f/m", "m"]
    assert figures["groups"]["f/m"]["targets"] == 0
    assert "eer" not in figures["groups"]["f/m"]
    assert "  f/m: one class, 0 targets, 648 non-targets" in out
    curve = list(csv.DictReader((place / "result" / "curve.csv").open()))
    assert (curve[0]["false_alarm"], curve[-1]["false_alarm"]) == ("1", "0")
    assert float(curve[5]["hit"]) == pytest.approx(1 - float(curve[5]["miss"]), abs=1e-5)
    bins = list(csv.DictReader((place / "result" / "histogram.csv").open()))
    assert (sum(int(row["targets"]) for row in bins), sum(int(row["nontargets"]) for row in bins)) == (72, 1188)


def test_compare_tells_which_system_is_better_and_how_sure_that_is(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["raw.txt", "seed.txt", "--trials", "trials.txt", "--bootstrap", 100]
    code, out, _ = run(capsys, "compare", *files, "--manifest", "m.csv", "--out", "result")
    assert code == 0
    written = json.loads((place / "result" / "metrics.json").read_text())
    table, protocol = written["results"], written["protocol"]
    assert [protocol["scores"][name]["file"] for name in ("first", "second")] == ["raw.txt", "seed.txt"]
    assert protocol["trials"]["file"] == "trials.txt"
    second = table["second"]
    assert second["eer_difference"] == pytest.approx(second["eer"] - table["first"]["eer"])
    assert second["eer_difference_ci"][1] < 0
    assert second["p_value"] == pytest.approx(2 / 101)
    assert f"difference {second['eer_difference']:+.2f} [" in out
    assert ", p = 0.020" in out
    assert "minDCF(0.05): " in out

    _, again, _ = run(capsys, "compare", *files, "--speakers", "speakers.txt")
    assert again.splitlines() == out.splitlines()[:-1]
    _, other, _ = run(capsys, "compare", *files, "--speakers", "speakers.txt", "--seed", 1)
    assert other != again


def test_compare_without_speakers_gives_no_interval_and_says_so(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "compare", "bare.txt", "bare.txt")
    assert code == 0
    assert "difference +0.00\n" in out
    assert "p = " not in out
    assert "No intervals" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["metrics", "raw.txt"], 1, "no labels"),
        (["metrics", "raw.txt", "--trials", "speakers.txt"], 1, "has no scores of some listed utterances"),
        (["metrics", "labelled.txt", "--trials", "bare_trials.txt"], 1, "bare_trials.txt: the list has no labels"),
        (["metrics", "nan.txt"], 1, "nan.txt:2: expected `score label`, found 'nan 0'. A score is a finite"),
        (["compare", "bare.txt", "nan.txt"], 1, "nan.txt:2: expected `score label`, found 'nan 0'"),
        (["metrics", "speakers.txt"], 1, "speakers.txt:1: expected `score label`"),
        (["metrics", "bare.txt", "--speakers", "speakers.txt"], 1, "name no utterances"),
        (["metrics", "labelled.txt", "--manifest", "m.csv", "--speakers", "speakers.txt"], 2, "not both"),
        (["compare", "raw.txt", "seed.txt"], 1, "not scores of the same trials"),
        (["compare", "bare.txt", "labelled.txt"], 1, "--trials"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    (place / "bare_trials.txt").write_text("s0/0 s0/1\ns0/0 s1/0\n")
    (place / "nan.txt").write_text("0.5 1\nnan 0\n")
    got, _, err = run(capsys, *arguments)
    assert got == code
    assert says in err
    assert len(err.splitlines()) == 1 or code == 2


def test_no_figure_is_a_negative_zero(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("perfect.txt").write_text("1 a b 0.5\n1 c d -0.0\n0 a c -0.00001\n0 b d -1\n")
    Path("same.txt").write_text("1 a b 0.6\n1 c d 0.1\n0 a c -0.2\n0 b d -1\n")
    Path("owners.txt").write_text("a s\nb s\nc t\nd t\n")
    options = ["--speakers", "owners.txt", "--bootstrap", 20]
    outputs = [
        run(capsys, "metrics", "perfect.txt", *options, "--out", "result"),
        run(capsys, "compare", "perfect.txt", "same.txt", *options, "--out", "result/compared"),
    ]
    assert [code for code, *_ in outputs] == [0, 0]
    assert "minCllr 0.000 bits" in outputs[0][1]
    texts = [out for _, out, _ in outputs] + [path.read_text() for path in place.glob("result/**/*.*")]
    assert len(texts) == 6
    for text in texts:
        assert not re.search(r"-0(\.0+)?(?![\d.e])", text), text


def test_an_utterance_that_is_spelt_otherwise_is_hinted_at(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("speakers.txt").read_text()
    Path("upper.txt").write_text(text.upper())
    code, _, err = run(capsys, "metrics", "labelled.txt", "--speakers", "upper.txt")
    assert (code, err) == (
        1,
        "seed: error: upper.txt: has no entry for 's0/0', which labelled.txt names. upper.txt holds 'S0/0': they differ"
        " in case. Make both ids match.\n",
    )
