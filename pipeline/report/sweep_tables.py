"""Tables of a sweep: one row for each run, or one for each set of parameters over its seeds."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report.results import CLEAN, COST
from pipeline.training.sweep.selection import FAILED, group_by_parameters, select_parameters
from pipeline.utils.markdown import escape_markdown, format_code


def build_sweep_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[str]]]:
    """Return the columns and rows of a CSV with one row for each run; failed runs have a reason and no figures."""
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    plain = [
        "validation_loss",
        "held_out_clean_eer",
        "held_out_noisy_eer",
        "held_out_speakers",
        "epoch",
        "strength",
        "train_seconds",
        "enhance_us",
    ]
    measured = [test for row in rows for test in row.get("test", {}).items()]
    tests = list(dict.fromkeys(name for name, _ in measured))
    costs = list(dict.fromkeys(key for _, figures in measured for key in figures if _is_cost(key)))
    columns = [*names, "seed", FAILED, *plain]
    for test in tests:
        columns += [f"{test} eer", f"{test} eer_low", f"{test} eer_high", *(f"{test} {key}" for key in costs)]

    def format_run(row: Mapping[str, Any]) -> list[str]:
        line = [str(row["parameters"].get(name, "")) for name in names]
        line += [str(row["seed"]), row.get(FAILED, "")]
        line += [_format_figure(row.get(key)) for key in plain]
        for test in tests:
            figures = row.get("test", {}).get(test, {})
            low, high = figures.get("eer_ci", (None, None))
            line += [
                _format_figure(value) for value in (figures.get("eer"), low, high, *(figures.get(key) for key in costs))
            ]
        return line

    return columns, map(format_run, rows)


def render_sweep(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of the parameters: means over seeds, and half the range of the seeds after ±.

    Below the table are the selected parameters and the ones that were ruled out, see `select_parameters`, and the
    failed runs, which are not part of the means.
    """
    columns: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "validation loss": lambda row: row["validation_loss"],
        "held-out clean EER, %": lambda row: row.get("held_out_clean_eer"),
        "held-out noisy EER, %": lambda row: row.get("held_out_noisy_eer"),
        "test clean EER, %": lambda row: row["test"][CLEAN]["eer"],
        "test noisy EER, %": lambda row: row["test"].get("mean noisy", {}).get("eer"),
        "train, s": lambda row: row["train_seconds"],
    }
    lines = ["| parameters | seeds | " + " | ".join(columns) + " |", "|---|---:" + "|---:" * len(columns) + "|"]
    for same in group_by_parameters(rows).values():
        done = [row for row in same if FAILED not in row]
        cells = [_spread([read(row) for row in done]) if done else "failed" for read in columns.values()]
        seeds = str(len(same)) if len(done) == len(same) else f"{len(done)} of {len(same)}"
        lines.append(f"| {_name_parameters(same[0]['parameters'])} | {seeds} | " + " | ".join(cells) + " |")
    choice = select_parameters(rows)
    if choice.parameters is not None:
        lowest = "Lowest noisy EER of held-out speakers, with a clean EER no worse than raw"
        lines += ["", f"{lowest}: {_name_parameters(choice.parameters)}."]
    if choice.left_out:
        lines += ["", "Ruled out:", ""]
        lines += [f"- {_name_parameters(parameters)}: {escape_markdown(why)}" for parameters, why in choice.left_out]
    failed = [row for row in rows if FAILED in row]
    if failed:
        lines += ["", "Failed:", ""]
        lines += [
            f"- {_name_parameters(row['parameters'])}, seed {row['seed']}: {escape_markdown(row[FAILED])}"
            for row in failed
        ]
    return "\n".join(lines) + "\n"


def _is_cost(key: str) -> bool:
    """Return True if a figure is a minDCF, not its interval or threshold."""
    return re.fullmatch(re.escape(COST) + r"[0-9.e+_-]+", key) is not None


def _name_parameters(parameters: Mapping[str, Any]) -> str:
    return ", ".join(format_code(f"{name}={value}") for name, value in parameters.items()) or "no changes"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = f"{np.mean(known):.3g}" if np.mean(known) >= 100 else f"{np.mean(known):z.2f}"
    return f"{text} ± {np.ptp(known) / 2:.2f}" if len(known) > 1 else text


def _format_figure(value: float | None) -> str:
    return "" if value is None else f"{value:z.6g}"
