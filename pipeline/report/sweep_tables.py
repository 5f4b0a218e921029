"""Tables of a sweep: one row a run, or one a set of parameters with its seeds taken together."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report.results import CLEAN, COST
from pipeline.training.sweep.selection import FAILED, by_parameters, select_parameters


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[str]]]:
    """Return the columns of a CSV, and its rows: one a run; of one that failed, the reason and no figures."""
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
    measured = [found for row in rows for found in row.get("test", {}).items()]
    tests = list(dict.fromkeys(test for test, _ in measured))
    costs = list(dict.fromkeys(key for _, found in measured for key in found if _is_cost(key)))
    columns = [*names, "seed", FAILED, *plain]
    for test in tests:
        columns += [f"{test} eer", f"{test} eer_low", f"{test} eer_high", *(f"{test} {key}" for key in costs)]

    def cells(row: Mapping[str, Any]) -> list[str]:
        line = [str(row["parameters"].get(name, "")) for name in names]
        line += [str(row["seed"]), row.get(FAILED, "")]
        line += [_shown(row.get(key)) for key in plain]
        for test in tests:
            found = row.get("test", {}).get(test, {})
            low, high = found.get("eer_ci", (None, None))
            line += [_shown(value) for value in (found.get("eer"), low, high, *(found.get(key) for key in costs))]
        return line

    return columns, map(cells, rows)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the runs, their seeds taken together: means, and half the range of the seeds behind ±.

    Below it stands what to take and what was left out of that, see `choice`, and which runs have failed: they are no
    part of the means.
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
    for same in by_parameters(rows).values():
        done = [row for row in same if FAILED not in row]
        cells = [_spread([read(row) for row in done]) if done else "failed" for read in columns.values()]
        seeds = str(len(same)) if len(done) == len(same) else f"{len(done)} of {len(same)}"
        lines.append(f"| {_named(same[0]['parameters'])} | {seeds} | " + " | ".join(cells) + " |")
    choice = select_parameters(rows)
    if choice.parameters is not None:
        lowest = "Lowest held-out noisy EER, held-out clean speech being no worse than raw"
        lines += ["", f"{lowest}: {_named(choice.parameters)}."]
    if choice.left_out:
        lines += ["", "Left out of the choice:", ""]
        lines += [f"- {_named(parameters)}: {why}" for parameters, why in choice.left_out]
    failed = [row for row in rows if FAILED in row]
    if failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {_named(row['parameters'])}, seed {row['seed']}: {row[FAILED]}" for row in failed]
    return "\n".join(lines) + "\n"


def _is_cost(key: str) -> bool:
    """Whether a figure is a minDCF, and not its interval or threshold."""
    return re.fullmatch(re.escape(COST) + r"[0-9.e+_-]+", key) is not None


def _named(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in parameters.items()) or "as they are"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = f"{np.mean(known):.3g}" if np.mean(known) >= 100 else f"{np.mean(known):.2f}"
    return f"{text} ± {np.ptp(known) / 2:.2f}" if len(known) > 1 else text


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
