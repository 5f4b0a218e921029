"""The figures of a report: read from the files of `seed score`, and checked."""

import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.config.conditions import is_condition
from pipeline.errors import TrialError

Table = Mapping[str, Mapping[str, Any]]
"""Figures by row (a condition or a trial list) and system; the first system is the baseline of the others."""

CLEAN = "clean"
PROTOCOL, RESULTS, MEAN_NOISY, MEAN_BOTH = "protocol", "results", "mean_noisy", "mean_both_noisy"

FIGURES = frozenset({"eer", "targets", "nontargets"})
COST = "min_dcf_"
"""The prefix of the names of minimum detection costs; the operating point follows."""

SIGNIFICANT = 0.05
"""The p-value below which changes of the EER are marked."""


def read_metrics(results: Path, encoders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `<encoder>/metrics.json` of every encoder.

    Each file has `protocol`, how it was measured, and `results`, a `Table`. For several conditions, it also has
    `mean_noisy`, figures of the mean EER over all conditions except clean by system, and `mean_both_noisy`, the same
    with both sides noisy.

    Raises:
        TrialError: a file is missing or malformed.
    """
    metrics = {}
    for encoder in encoders:
        path = results / encoder / "metrics.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
            if not isinstance(content[PROTOCOL], dict) or not isinstance(content[RESULTS], dict):
                raise TypeError(f"{PROTOCOL} and {RESULTS} must be tables")
            problem = None
            for name in (MEAN_NOISY, MEAN_BOTH):
                problem = problem or _find_problem(content[RESULTS], name, content.get(name, {}))
        except FileNotFoundError:
            raise TrialError(f"{path}: no metrics there. Make them with `seed score`.") from None
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise TrialError(f"{path}: not a metrics file ({error!r}). Score again.") from error
        if problem:
            raise TrialError(f"{path}: {problem}")
        metrics[encoder] = content
    return metrics


def _find_problem(table: Table, name: str, means: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a table or with its means `name`, or None."""
    if means and (list(means) != system_names(table) or not all("eer" in figures for figures in means.values())):
        return f"{name} has other systems than {RESULTS}. Score again."
    if CLEAN not in table and not has_trial_lists(table):
        return f"has no condition {CLEAN}. Score it too."
    if not all(list(systems) == system_names(table) and systems for systems in table.values()):
        return "every row needs the same systems. Score all of them together."
    required = FIGURES | set(cost_names(table))
    if not all(set(figures) >= required for systems in table.values() for figures in systems.values()):
        return f"lacks some of {', '.join(sorted(required))}. Score again."
    for row, systems in (*table.items(), (name, means)):
        for system, figures in systems.items():
            if wrong := next((key for key in figures if not _is_plausible(key, figures[key])), None):
                return f"{row}, {system}: {wrong} is {reprlib.repr(figures[wrong])}. Score again."
    return None


def _is_plausible(key: str, value: Any) -> bool:
    """Return True unless a figure that a report shows is of another type."""
    if key in ("targets", "nontargets"):
        return isinstance(value, int)
    if key in ("eer", "p_value") or re.fullmatch(re.escape(COST) + r"[0-9.e+-]+(_[0-9.e+-]+)*", key):
        return isinstance(value, int | float)
    if key == "eer_ci":
        return isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value)
    return True


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} in place of a number")


def has_trial_lists(table: Table) -> bool:
    """Return True if a table's rows are trial lists, False if they are conditions."""
    return bool(table) and not any(is_condition(name) for name in table)


def system_names(table: Table) -> list[str]:
    """Return the names of the systems, the baseline first."""
    return list(next(iter(table.values())))


def cost_names(table: Table) -> list[str]:
    """Return the names of the minimum detection costs that were measured."""
    first = next(iter(next(iter(table.values())).values()))
    return [key for key, value in first.items() if key.startswith(COST) and isinstance(value, float)]


def relative_change(before: float, after: float) -> float | None:
    """Return (after - before) / before, or None if `before` is 0."""
    return (after - before) / before if before > 0 else None


EER_COLUMNS = ("what", "eer")


def eer_rows(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield every EER in percent by encoder, row and system, for DVC's plots."""
    for encoder, content in metrics.items():
        means = {"mean noisy": content.get(MEAN_NOISY, {}), "mean both noisy": content.get(MEAN_BOTH, {})}
        for row, systems in (content[RESULTS] | means).items():
            for system, figures in systems.items():
                yield f"{encoder} {row} {system}", f"{figures['eer']:.4f}"


def is_significant(figures: Mapping[str, Any]) -> bool:
    """Return True if a system's EER differs significantly from the baseline's."""
    return "p_value" in figures and figures["p_value"] < SIGNIFICANT


def any_significant(table: Table) -> bool:
    """Return True if any change in the table is significant, so that a footnote must explain its mark."""
    return any(is_significant(figures) for systems in table.values() for figures in systems.values())
