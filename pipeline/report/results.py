"""The figures of a report: read from the files of `seed score`, checked, and summed up."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.conditions import is_condition
from pipeline.errors import TrialError

Table = Mapping[str, Mapping[str, Any]]
"""Figures by row, which is a condition or a trial list, and system; the first system is the baseline of the others."""

CLEAN = "clean"
PROTOCOL, RESULTS, MEAN_NOISY, MEAN_BOTH = "protocol", "results", "mean_noisy", "mean_both_noisy"

FIGURES = frozenset({"eer", "targets", "nontargets"})
COST = "min_dcf_"
"""How the names of figures begin that are least detection costs; their operating point follows."""

SIGNIFICANT = 0.05
"""Changes of the EER with a p below are marked."""


def read_metrics(results: Path, encoders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `<encoder>/metrics.json` of every encoder.

    Each has `protocol`, how it was measured; `results`, a `Table`; and of several conditions `mean_noisy`, the figures
    of the mean EER over all conditions but clean by system; `mean_both_noisy` is the same of both sides noisy.

    Raises:
        TrialError: one is missing or is no such file.
    """
    metrics = {}
    for encoder in encoders:
        path = results / encoder / "metrics.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content[PROTOCOL], dict) or not isinstance(content[RESULTS], dict):
                raise TypeError(f"{PROTOCOL} and {RESULTS} must be tables")
            fault = None
            for name in (MEAN_NOISY, MEAN_BOTH):
                fault = fault or _fault(content[RESULTS], name, content.get(name, {}))
        except FileNotFoundError:
            raise TrialError(f"{path}: no metrics there. Make them with `seed score`.") from None
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise TrialError(f"{path}: not a metrics file ({error!r}). Score again.") from error
        if fault:
            raise TrialError(f"{path}: {fault}")
        metrics[encoder] = content
    return metrics


def _fault(table: Table, name: str, means: Mapping[str, Any]) -> str | None:
    """Return what a table or its means of some name lack, or None."""
    if means and (list(means) != systems_of(table) or not all("eer" in figures for figures in means.values())):
        return f"{name} is not of the systems in {RESULTS}. Score again."
    if CLEAN not in table and not read_list_metrics(table):
        return f"has no condition {CLEAN}. Score it too."
    if not all(list(systems) == systems_of(table) and systems for systems in table.values()):
        return "every row needs the same systems. Score all of them together."
    wanted = FIGURES | set(costs(table))
    if not all(set(figures) >= wanted for systems in table.values() for figures in systems.values()):
        return f"lacks some of {', '.join(sorted(wanted))}. Score again."
    return None


def read_list_metrics(table: Table) -> bool:
    """Return whether a table's rows are trial lists by name, rather than conditions."""
    return bool(table) and not any(is_condition(name) for name in table)


def systems_of(table: Table) -> list[str]:
    """Return the names of the systems, the baseline first."""
    return list(next(iter(table.values())))


def costs(table: Table) -> list[str]:
    """Return the names of the least detection costs that were measured."""
    first = next(iter(next(iter(table.values())).values()))
    return [key for key, value in first.items() if key.startswith(COST) and isinstance(value, float)]


def relative_change(before: float, after: float) -> float | None:
    """Return (after - before) / before, or None where there is nothing to compare with."""
    return (after - before) / before if before > 0 else None


EER_COLUMNS = ("what", "eer")


def eer_rows(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield every EER in percent by encoder, row and system, for plots of DVC."""
    for encoder, content in metrics.items():
        means = {"mean noisy": content.get(MEAN_NOISY, {}), "mean both noisy": content.get(MEAN_BOTH, {})}
        for row, systems in (content[RESULTS] | means).items():
            for system, figures in systems.items():
                yield f"{encoder} {row} {system}", f"{figures['eer']:.4f}"


def significant(figures: Mapping[str, Any]) -> bool:
    """Return whether a system's EER differs from the baseline's."""
    return "p_value" in figures and figures["p_value"] < SIGNIFICANT


def marked(table: Table) -> bool:
    """Return whether any change of the table is significant, so that its mark has to be explained."""
    return any(significant(figures) for systems in table.values() for figures in systems.values())
