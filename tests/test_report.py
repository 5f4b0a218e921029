import json
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config import Params
from pipeline.corpora import read_corpus
from pipeline.errors import TrialError
from pipeline.report import markdown_report, mean_noisy, read_metrics, summary_line, terminal_table

CORPORA = Path(__file__).parent.parent / "data" / "corpora.yaml"


def system(eer: float) -> dict[str, object]:
    return {
        "eer": eer,
        "eer_ci": [eer - 1, eer + 1],
        "min_dcf_0.01": 0.5,
        "min_dcf_0.05": 0.25,
        "targets": 10,
        "nontargets": 9000,
    }


TABLE = {
    "clean": {"raw": system(4.0), "seed": system(5.0)},
    "noise0": {"raw": system(20.0), "seed": system(10.0)},
    "reverb": {"raw": system(10.0), "seed": system(5.0)},
}


def test_the_mean_is_over_noisy_conditions_only() -> None:
    assert mean_noisy(TABLE, "raw") == 15
    assert mean_noisy({"clean": TABLE["clean"]}, "raw") is None
    assert summary_line("ge2e", TABLE) == "ge2e: clean EER 4.00 -> 5.00 %, mean noisy EER 15.00 -> 7.50 % (-50 %)"


def test_markdown_says_what_was_done_and_what_came_out() -> None:
    text = markdown_report({"ge2e": TABLE}, Params(), read_corpus(CORPORA, "demo"))
    assert "synthetic voices" in text
    assert "| clean | 4.00 [3.0, 5.0] | 5.00 [4.0, 6.0] | +25 % | 0.500 | 0.500 | 0.250 | 0.250 |" in text
    assert "| mean noisy | 15.00 | 7.50 | -50 % |" in text
    assert "10 target and 9,000 non-target trials" in text
    assert "Seed 0" in text


def test_significant_changes_are_marked_and_explained() -> None:
    better, same = system(10.0) | {"p_value": 0.01}, system(10.0) | {"p_value": 0.05}
    for clean, marks in ((same, ["+150 %", "-50 %*"]), (better, ["+150 %*", "-50 %*"])):
        table = {"clean": {"raw": system(4.0), "seed": clean}, "noise0": {"raw": system(20.0), "seed": better}}
        text = markdown_report({"x": table}, Params(), None)
        assert [line.split(" | ")[3] for line in text.splitlines() if line.startswith(("| clean", "| noise0"))] == marks
        assert text.count("p < 0.05") == 1
        console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(terminal_table("x", table))
        shown = console.export_text()
        assert "-50 %*" in shown
        assert "p < 0.05" in shown
    assert "p < 0.05" not in markdown_report({"x": TABLE}, Params(), None)


def test_columns_are_the_costs_that_were_measured() -> None:
    def other(eer: float) -> dict[str, object]:
        kept = {key: value for key, value in system(eer).items() if not key.startswith("min_dcf")}
        return kept | {"min_dcf_0.5_10_1": 0.125, "min_cllr": 0.1}

    text = markdown_report({"x": {"clean": {"raw": other(4.0), "seed": other(5.0)}}}, Params(), None)
    assert "| condition | EER raw, % | EER seed, % | change | minDCF 0.5_10_1 raw | seed |" in text
    assert "| +25 % | 0.125 | 0.125 |" in text


def test_the_terminal_table_holds_every_condition() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table("ge2e", TABLE))
    text = console.export_text()
    for name in (*TABLE, "mean noisy", "-50 %"):
        assert name in text


def test_a_perfect_raw_system_has_no_relative_change() -> None:
    text = markdown_report(
        {"x": {"clean": {"raw": system(0.0), "seed": system(0.0)}}}, Params(), read_corpus(CORPORA, "demo")
    )
    assert "| – |" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no metrics there"),
        ("{", "not a metrics file"),
        ("[1]", "not a metrics file"),
        ('{"clean": {"raw": {}}}', "raw and seed"),
        ('{"clean": {"raw": {}, "seed": {}}}', "lacks some of eer"),
        (json.dumps(TABLE | {"noise0": {"raw": system(1.0), "seed": {"eer": 1.0}}}), "lacks some of eer, min_dcf_0.01"),
        ("{}", "no condition clean"),
    ],
)
def test_missing_or_damaged_metrics_are_an_error(tmp_path: Path, content: str | None, says: str) -> None:
    (tmp_path / "ge2e").mkdir()
    if content is not None:
        (tmp_path / "ge2e" / "metrics.json").write_text(content)
    with pytest.raises(TrialError, match=says):
        read_metrics(tmp_path, ["ge2e"])


def test_metrics_are_keyed_by_encoder_condition_and_system(tmp_path: Path) -> None:
    (tmp_path / "ge2e").mkdir()
    (tmp_path / "ge2e" / "metrics.json").write_text(json.dumps(TABLE))
    assert read_metrics(tmp_path, ["ge2e"])["ge2e"]["noise0"]["seed"]["eer"] == 10
