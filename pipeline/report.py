"""Tables of error rates, for people and for programs."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.augment.steps import is_condition
from pipeline.config import Params
from pipeline.corpora import Corpus
from pipeline.errors import TrialError
from pipeline.files import replacing
from pipeline.metrics import Roc, histogram, probit
from pipeline.metrics.roc import Mask, Scores
from pipeline.places import Place
from pipeline.quality import StoreQuality, markdown

if TYPE_CHECKING:
    from rich.table import Table

Metrics = Mapping[str, Mapping[str, Any]]
"""Metrics of one encoder by condition and system."""

RAW, SEED = "raw", "seed"
CLEAN = "clean"
MEAN = "mean noisy"

FIGURES = frozenset({"eer", "targets", "nontargets"})
COST = "min_dcf_"
"""How the names of figures begin that are least detection costs; their operating point follows."""

SIGNIFICANT = 0.05
"""Changes of the EER with a p below are marked."""
FOOTNOTE = (
    f"`*`: the EERs differ, p < {SIGNIFICANT} (two-sided, paired bootstrap over speakers; each condition by itself)."
)


def read_metrics(results: Path, encoders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `<encoder>/metrics.json` of every encoder.

    Raises:
        TrialError: one is missing or is no such file.
    """
    metrics = {}
    for encoder in encoders:
        path = results / encoder / "metrics.json"
        try:
            metrics[encoder] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(metrics[encoder], dict):
                raise TypeError("it holds no table")
            if CLEAN not in metrics[encoder] and not of_lists(metrics[encoder]):
                raise TrialError(f"{path}: has no condition {CLEAN}. Score it too.")
            if not all({RAW, SEED} <= set(systems) for systems in metrics[encoder].values()):
                raise TrialError(f"{path}: every condition needs the systems {RAW} and {SEED}. Score both.")
            wanted = FIGURES | set(costs(metrics[encoder]))
            if not all(set(systems[name]) >= wanted for systems in metrics[encoder].values() for name in (RAW, SEED)):
                raise TrialError(f"{path}: lacks some of {', '.join(sorted(wanted))}. Score again.")
        except FileNotFoundError:
            raise TrialError(f"{path}: no metrics there. Make them with `seed score`.") from None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
            raise TrialError(f"{path}: not a metrics file ({error}). Score again.") from error
    return metrics


def of_lists(table: Mapping[str, Any]) -> bool:
    """Return whether a table's rows are trial lists by name, rather than conditions."""
    return bool(table) and not any(is_condition(name) for name in table)


def relative_change(before: float, after: float) -> float | None:
    """Return (after - before) / before, or None where there is nothing to compare with."""
    return (after - before) / before if before > 0 else None


def mean_noisy(table: Metrics, system: str) -> float | None:
    """Return a system's mean EER in percent over all conditions but clean, or None if there are none."""
    if of_lists(table):
        return None
    values = [systems[system]["eer"] for name, systems in table.items() if name != CLEAN]
    return float(np.mean(values)) if values else None


def costs(table: Metrics) -> list[str]:
    """Return the names of the least detection costs that were measured."""
    first = next(iter(table.values()))[RAW]
    return [key for key, value in first.items() if key.startswith(COST) and isinstance(value, float)]


def header(table: Metrics) -> tuple[str, ...]:
    """Return the names of the table's columns."""
    pairs = [(f"minDCF {key.removeprefix(COST)} raw", "seed") for key in costs(table)]
    return ("condition", "EER raw, %", "EER seed, %", "change", *(name for pair in pairs for name in pair))


def marked(table: Metrics) -> bool:
    """Return whether any change of the table is significant, so that the footnote is called for."""
    return any(_significant(systems[SEED]) for systems in table.values())


def rows(table: Metrics) -> list[tuple[str, ...]]:
    """Return the table's rows as text, one a condition and the mean EER over the noisy ones."""
    lines = []
    for condition, systems in table.items():
        raw, seed = systems[RAW], systems[SEED]
        change = _change(raw["eer"], seed["eer"]) + ("*" if _significant(seed) else "")
        least = [f"{system[key]:.3f}" for key in costs(table) for system in (raw, seed)]
        lines.append((condition, _with_interval(raw), _with_interval(seed), change, *least))
    before, after = mean_noisy(table, RAW), mean_noisy(table, SEED)
    if before is not None and after is not None:
        lines.append((MEAN, f"{before:.2f}", f"{after:.2f}", _change(before, after), *[""] * (2 * len(costs(table)))))
    return lines


def terminal_table(encoder: str, table: Metrics) -> "Table":
    """Return the table of one encoder for rich to print."""
    from rich.table import Table

    title = "trial lists" if of_lists(table) else "enrolment clean, test in the condition"
    result = Table(title=f"{encoder}: {title}", caption=FOOTNOTE.replace("`", "") if marked(table) else None)
    for number, name in enumerate(header(table)):
        result.add_column(name, justify="left" if number == 0 else "right")
    for line in rows(table):
        result.add_row(*line, end_section=line[0] == CLEAN, style="bold" if line[0] == MEAN else None)
    return result


def summary_line(encoder: str, table: Metrics) -> str:
    """Return one line on an encoder: the EER on clean speech and the mean over noisy conditions, or on each list."""
    if of_lists(table):
        changes = (f"{name} EER {row[RAW]['eer']:.2f} -> {row[SEED]['eer']:.2f} %" for name, row in table.items())
        return f"{encoder}: {', '.join(changes)}"
    clean = table[CLEAN]
    text = f"{encoder}: clean EER {clean[RAW]['eer']:.2f} -> {clean[SEED]['eer']:.2f} %"
    before, after = mean_noisy(table, RAW), mean_noisy(table, SEED)
    if before is not None and after is not None:
        text += f", mean noisy EER {before:.2f} -> {after:.2f} % ({_change(before, after)})"
    return text


def markdown_report(
    metrics: Mapping[str, Metrics],
    params: Params,
    corpus: Corpus | None,
    quality: Mapping[str, StoreQuality] | None = None,
) -> str:
    """Return the whole report in Markdown: what was done, and an encoder's error rates and quality of its store."""
    score, extract = params.score, params.extract
    crops = (
        "whole utterances"
        if extract.eval_frames is None
        else f"{extract.eval_crops} crops of {extract.eval_frames} frames"
    )
    trials = (
        f"Enrolment clean, test in the condition; {crops}, cosine; all ordered pairs of different utterances, at most"
        f" {score.max_trials:,}."
    )
    if all(map(of_lists, metrics.values())):
        trials = f"Trial lists by name; {crops}, cosine."
    lines = [
        f"# Error rates on {params.corpus}",
        "",
        *([f"{corpus.title}.", ""] if corpus else []),
        f"{trials}{_disjoint(corpus)}",
        f"In brackets: 95 % interval, bootstrap over speakers ({score.bootstrap} resamples). Seed {params.seed}.",
    ]
    for encoder, table in metrics.items():
        lines += ["", f"## {encoder}", "", *_counts(table), ""]
        columns = header(table)
        lines += ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        lines += ["| " + " | ".join(line) + " |" for line in rows(table)]
        if marked(table):
            lines += ["", FOOTNOTE]
        if quality and encoder in quality:
            lines += ["", *markdown(quality[encoder])]
    return "\n".join(lines) + "\n"


def _counts(table: Metrics) -> list[str]:
    texts = {
        name: f"{row[RAW]['targets']:,} target and {row[RAW]['nontargets']:,} non-target trials."
        for name, row in table.items()
    }
    return [f"- {name}: {text}" for name, text in texts.items()] if of_lists(table) else [next(iter(texts.values()))]


def _disjoint(corpus: Corpus | None) -> str:
    if corpus is None:
        return ""
    if corpus.overlap:
        return " Train and test may share speakers or sounds: these figures are no evidence."
    return " Train and test share no speakers, noise, music, rooms or background talkers."


def write_json(path: Place, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Place, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_det(path: Place, rocs: Mapping[tuple[str, str], Roc]) -> None:
    """Write the points of several ROCs by (condition, system) as CSV, rates in percent."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("condition", "system", "false_alarm", "miss"))
        for (condition, system), roc in rocs.items():
            for false_alarm, miss in zip(roc.false_alarm, roc.miss, strict=True):
                writer.writerow((condition, system, f"{100 * false_alarm:.4f}", f"{100 * miss:.4f}"))


def write_curve(path: Place, roc: Roc) -> None:
    """Write the points of a ROC as CSV: rates as shares, and where they lie on the axes of a DET plot."""
    columns = (roc.threshold, roc.false_alarm, roc.miss, 1 - roc.miss, probit(roc.false_alarm), probit(roc.miss))
    header = "threshold,false_alarm,miss,hit,probit_false_alarm,probit_miss"
    with replacing(path) as temporary:
        np.savetxt(temporary, np.column_stack(columns), fmt="%.6g", delimiter=",", header=header, comments="")


def write_histograms(path: Place, histograms: Mapping[tuple[str, str], tuple[NDArray[Any], ...]]) -> None:
    """Write histograms by (condition, system), see `metrics.histogram`, as CSV."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("condition", "system", "from", "to", "targets", "nontargets"))
        for (condition, system), (edges, targets, nontargets) in histograms.items():
            for low, high, hits, others in zip(edges, edges[1:], targets, nontargets, strict=False):
                writer.writerow((condition, system, f"{low:.6g}", f"{high:.6g}", int(hits), int(others)))


def write_histogram(path: Place, scores: Scores, target: Mask) -> None:
    """Write how many targets and non-targets have scores in each of 100 equal bins, as CSV."""
    edges, targets, nontargets = histogram(scores, target)
    columns = (edges[:-1], edges[1:], targets, nontargets)
    with replacing(path) as temporary:
        np.savetxt(
            temporary,
            np.column_stack(columns),
            fmt=["%.6g", "%.6g", "%d", "%d"],
            delimiter=",",
            header="from,to,targets,nontargets",
            comments="",
        )


def _with_interval(system: Mapping[str, Any]) -> str:
    interval = system.get("eer_ci")
    return f"{system['eer']:.2f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _significant(system: Mapping[str, Any]) -> bool:
    return "p_value" in system and system["p_value"] < SIGNIFICANT


def _change(before: float, after: float) -> str:
    change = relative_change(before, after)
    return "–" if change is None else f"{100 * change:+.0f} %"
