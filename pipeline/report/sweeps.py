"""Tables of a sweep: one row a run, or one a set of parameters with its seeds taken together."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.choice import choose
from pipeline.report.results import CLEAN


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[str]]]:
    """Return the columns of a CSV, and its rows: one a run."""
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    plain = [
        "validation_loss",
        "held_out_clean_eer",
        "held_out_noisy_eer",
        "epoch",
        "strength",
        "train_seconds",
        "enhance_us",
    ]
    tests = list(rows[0]["test"])
    costs = [key for key in rows[0]["test"][tests[0]] if key.startswith("min_dcf") and key.count("_") == 2]
    columns = [*names, "seed", *plain]
    for test in tests:
        columns += [f"{test} eer", f"{test} eer_low", f"{test} eer_high", *(f"{test} {key}" for key in costs)]

    def cells(row: Mapping[str, Any]) -> list[str]:
        line = [str(row["parameters"].get(name, "")) for name in names] + [str(row["seed"])]
        line += [_shown(row.get(key)) for key in plain]
        for test in tests:
            found = row["test"][test]
            low, high = found.get("eer_ci", (None, None))
            line += [_shown(value) for value in (found["eer"], low, high, *(found.get(key) for key in costs))]
        return line

    return columns, map(cells, rows)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the runs, their seeds taken together: means, and half the range of the seeds behind ±.

    Below it stands what to take, see `choice`.
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(json.dumps(row["parameters"], sort_keys=True), []).append(row)
    columns: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "validation loss": lambda row: row["validation_loss"],
        "held-out clean EER, %": lambda row: row.get("held_out_clean_eer"),
        "held-out noisy EER, %": lambda row: row.get("held_out_noisy_eer"),
        "test clean EER, %": lambda row: row["test"][CLEAN]["eer"],
        "test noisy EER, %": lambda row: row["test"].get("mean noisy", {}).get("eer"),
        "train, s": lambda row: row["train_seconds"],
    }
    lines = ["| parameters | seeds | " + " | ".join(columns) + " |", "|---|---:" + "|---:" * len(columns) + "|"]
    for same in grouped.values():
        cells = [_spread([read(row) for row in same]) for read in columns.values()]
        lines.append(f"| {_named(same[0]['parameters'])} | {len(same)} | " + " | ".join(cells) + " |")
    chosen = choose(rows)
    if chosen is not None:
        lines += ["", f"Lowest held-out noisy EER, held-out clean speech being no worse than raw: {_named(chosen)}."]
    return "\n".join(lines) + "\n"


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
