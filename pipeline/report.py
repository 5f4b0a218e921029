"""Tables of error rates, for people and for programs."""

import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.augment.steps import is_condition
from pipeline.config import Params
from pipeline.corpora import Corpus
from pipeline.errors import TrialError
from pipeline.files import replacing
from pipeline.metrics import Roc, det_points
from pipeline.places import Place
from pipeline.quality import StoreQuality, markdown
from pipeline.trials import Trials

if TYPE_CHECKING:
    from rich.table import Table

Metrics = Mapping[str, Mapping[str, Any]]
"""Metrics of one encoder by condition and system."""

RAW, SEED = "raw", "seed"
CLEAN = "clean"
MEAN = "mean noisy"

FIGURES = frozenset({"eer", "min_dcf_0.01", "min_dcf_0.05", "targets", "nontargets"})

HEADER = ("condition", "EER raw, %", "EER seed, %", "change", "minDCF 0.01 raw", "seed", "minDCF 0.05 raw", "seed")


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
            if not all(set(systems[name]) >= FIGURES for systems in metrics[encoder].values() for name in (RAW, SEED)):
                raise TrialError(f"{path}: lacks some of {', '.join(sorted(FIGURES))}. Score again.")
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


def rows(table: Metrics) -> list[tuple[str, ...]]:
    """Return the table's rows as text, one a condition and the mean EER over the noisy ones."""
    lines = []
    for condition, systems in table.items():
        raw, seed = systems[RAW], systems[SEED]
        costs = [f"{system[f'min_dcf_{p}']:.3f}" for p in ("0.01", "0.05") for system in (raw, seed)]
        lines.append((condition, _with_interval(raw), _with_interval(seed), _change(raw["eer"], seed["eer"]), *costs))
    before, after = mean_noisy(table, RAW), mean_noisy(table, SEED)
    if before is not None and after is not None:
        lines.append((MEAN, f"{before:.2f}", f"{after:.2f}", _change(before, after), "", "", "", ""))
    return lines


def terminal_table(encoder: str, table: Metrics) -> "Table":
    """Return the table of one encoder for rich to print."""
    from rich.table import Table

    title = "trial lists" if of_lists(table) else "enrolment clean, test in the condition"
    result = Table(title=f"{encoder}: {title}")
    for number, name in enumerate(HEADER):
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
        lines += ["| " + " | ".join(HEADER) + " |", "|---" + "|---:" * (len(HEADER) - 1) + "|"]
        lines += ["| " + " | ".join(line) + " |" for line in rows(table)]
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
    """Write DET points of several ROCs by (condition, system) as CSV, rates in percent."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("condition", "system", "false_alarm", "miss"))
        for (condition, system), roc in rocs.items():
            for false_alarm, miss in det_points(roc):
                writer.writerow((condition, system, f"{100 * false_alarm:.4f}", f"{100 * miss:.4f}"))


def write_scores(
    path: Place, enrol: Sequence[str], test: Sequence[str], trials: Trials, scores: NDArray[np.float32]
) -> None:
    """Write a score a trial as CSV, with its label if it has one; `enrol` are utterances or models."""
    labels = itertools.repeat("") if trials.target is None else map(str, trials.target.astype(int))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("label", "enrolment", "test", "score"))
        for label, left, right, value in zip(labels, trials.enrol, trials.test, scores, strict=False):
            writer.writerow((label, enrol[left], test[right], f"{value:.6f}"))


def _with_interval(system: Mapping[str, Any]) -> str:
    interval = system.get("eer_ci")
    return f"{system['eer']:.2f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _change(before: float, after: float) -> str:
    change = relative_change(before, after)
    return "–" if change is None else f"{100 * change:+.0f} %"
