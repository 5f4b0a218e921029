import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.config.params import Params
from pipeline.data.corpora import read_corpus
from pipeline.errors import TrialError
from pipeline.report import markdown_report, read_metrics, summary_line, terminal_table

CORPORA = Path(__file__).parents[2] / "data" / "corpora.yaml"


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


def measured(table: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    """Put a table into what `seed score` writes, with the means that it would have."""
    content: dict[str, object] = {"protocol": {}, "results": table}
    noisy = [systems for name, systems in table.items() if name != "clean"]
    if "clean" in table and noisy:
        names = list(table["clean"])
        content["mean_noisy"] = {
            name: {"eer": float(np.mean([systems[name]["eer"] for systems in noisy if name in systems]))}
            for name in names
        }
    return content


def shown(table: dict[str, dict[str, dict[str, object]]]) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_table("x", measured(table)))
    return console.export_text()


def test_the_mean_over_noisy_conditions_has_its_interval_and_mark() -> None:
    content = measured(TABLE)
    content["mean_noisy"]["seed"] |= {"eer_ci": [7.0, 8.0], "p_value": 0.01}
    text = markdown_report({"x": content}, Params(), None)
    assert "| mean noisy | seed | 7.50 [7.0, 8.0] | -50 %* |  |  |" in text


def test_both_sides_noisy_is_a_row_of_its_own() -> None:
    content = measured(TABLE) | {"mean_both_noisy": {"raw": {"eer": 30.0}, "seed": {"eer": 20.0}}}
    text = markdown_report({"x": content}, Params(), None)
    assert "| mean both noisy | seed | 20.00 | -33 % |  |  |" in text
    assert "Both noisy: enrolment and test in the condition." in text


def test_a_line_sums_an_encoder_up() -> None:
    assert (
        summary_line("ge2e", measured(TABLE))
        == "ge2e: clean EER 4.00 -> 5.00 %, mean noisy EER 15.00 -> 7.50 % (-50 %)"
    )


def test_markdown_says_what_was_done_and_what_came_out() -> None:
    text = markdown_report({"ge2e": measured(TABLE)}, Params(), read_corpus(CORPORA, "demo"))
    assert "synthetic voices" in text
    assert "| condition | system | EER, % | change | minDCF 0.01 | minDCF 0.05 |\n|---|---|---:|---:|---:|---:|" in text
    assert "| clean | raw | 4.00 [3.0, 5.0] |  | 0.500 | 0.250 |" in text
    assert "| clean | seed | 5.00 [4.0, 6.0] | +25 % | 0.500 | 0.250 |" in text
    assert "| mean noisy | raw | 15.00 |  |  |  |" in text
    assert "| mean noisy | seed | 7.50 | -50 % |  |  |" in text
    assert "10 target and 9,000 non-target trials" in text
    assert "Seed 0" in text


def test_significant_changes_are_marked_and_explained() -> None:
    better, same = system(10.0) | {"p_value": 0.01}, system(10.0) | {"p_value": 0.05}
    for clean, marks in ((same, ["+150 %", "-50 %*"]), (better, ["+150 %*", "-50 %*"])):
        table = {"clean": {"raw": system(4.0), "seed": clean}, "noise0": {"raw": system(20.0), "seed": better}}
        text = markdown_report({"x": measured(table)}, Params(), None)
        assert [line.split(" | ")[3] for line in text.splitlines() if " | seed |" in line][:2] == marks
        assert text.count("p < 0.05") == 1
        assert "-50 %*" in shown(table)
        assert "p < 0.05" in shown(table)
    assert "p < 0.05" not in markdown_report({"x": measured(TABLE)}, Params(), None)


def test_columns_are_the_costs_that_were_measured() -> None:
    def other(eer: float) -> dict[str, object]:
        kept = {key: value for key, value in system(eer).items() if not key.startswith("min_dcf")}
        return kept | {"min_dcf_0.5_10_1": 0.125, "min_cllr": 0.1}

    text = markdown_report({"x": measured({"clean": {"raw": other(4.0), "seed": other(5.0)}})}, Params(), None)
    assert "| condition | system | EER, % | change | minDCF 0.5_10_1 |" in text
    assert "| +25 % | 0.125 |" in text


def test_any_number_of_systems_by_any_names_is_compared_with_the_first() -> None:
    names = ["[b]a|b[/b]", "raw_asnorm", "<fusion>"]
    conditions = {"clean": [4.0, 2.0, 5.0], "noise0": [20.0, 10.0, 5.0]}
    table = {name: dict(zip(names, map(system, eers), strict=True)) for name, eers in conditions.items()}
    text = markdown_report({"x": measured(table)}, Params(), None)
    assert "| clean | \\[b\\]a\\|b\\[/b\\] | 4.00 [3.0, 5.0] |  |" in text
    assert "| clean | raw_asnorm | 2.00 [1.0, 3.0] | -50 % |" in text
    assert "| noise0 | &lt;fusion&gt; | 5.00 [4.0, 6.0] | -75 % |" in text
    assert summary_line("x", measured(table)).endswith(
        "mean noisy EER [b]a|b[/b] 20.00, raw_asnorm 10.00, <fusion> 5.00 %"
    )
    assert "[b]a|b[/b]" in shown(table)

    alone = {"clean": {"raw": system(4.0)}, "noise0": {"raw": system(20.0)}}
    assert "| mean noisy | raw | 20.00 |  |" in markdown_report({"x": measured(alone)}, Params(), None)
    assert summary_line("x", measured(alone)) == "x: clean EER 4.00 %, mean noisy EER 20.00 %"


def test_trial_lists_have_no_mean() -> None:
    table = {name: {"raw": system(4.0), "seed": system(3.0)} for name in ("vox1-o", "vox1-o/noise5")}
    text = markdown_report({"x": measured(table)}, Params(), None)
    assert "| trial list | system |" in text
    assert "mean noisy" not in text
    assert summary_line("x", measured(table)) == "x: vox1-o EER 4.00 -> 3.00 %, vox1-o/noise5 EER 4.00 -> 3.00 %"


def test_the_terminal_table_holds_every_condition() -> None:
    text = shown(TABLE)
    for name in (*TABLE, "mean noisy", "-50 %"):
        assert name in text


def test_a_perfect_raw_system_has_no_relative_change() -> None:
    text = markdown_report({"x": measured({"clean": {"raw": system(0.0), "seed": system(0.0)}})}, Params(), None)
    assert "| – |" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no metrics there"),
        ("{", "not a metrics file"),
        ("[1]", "not a metrics file"),
        (json.dumps(TABLE), "not a metrics file"),
        ('{"protocol": {}, "results": []}', "not a metrics file"),
        ('{"protocol": {}, "results": {"clean": {}}}', "the same systems"),
        (json.dumps(measured(TABLE | {"noise0": {"raw": system(1.0)}})), "the same systems"),
        ('{"protocol": {}, "results": {"clean": {"raw": {}, "seed": {}}}}', "lacks some of eer"),
        (
            json.dumps(measured(TABLE | {"noise0": {"raw": system(1.0), "seed": {"eer": 1.0}}})),
            "lacks some of eer, min_dcf_0.01",
        ),
        ('{"protocol": {}, "results": {}}', "no condition clean"),
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
    (tmp_path / "ge2e" / "metrics.json").write_text(json.dumps(measured(TABLE)))
    assert read_metrics(tmp_path, ["ge2e"])["ge2e"]["results"]["noise0"]["seed"]["eer"] == 10
