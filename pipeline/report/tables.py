"""The result table as text, for the terminal, Markdown and the page, and the report in Markdown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.config.params import Params
from pipeline.data.corpora import Corpus
from pipeline.extraction.quality import StoreQuality, markdown
from pipeline.report.results import (
    CLEAN,
    COST,
    MEAN_BOTH,
    MEAN_NOISY,
    RESULTS,
    SIGNIFICANT,
    Table,
    costs,
    marked,
    read_list_metrics,
    relative_change,
    significant,
    systems_of,
)

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

MEAN, BOTH = "mean noisy", "mean both noisy"
FOOTNOTE = (
    f"`*`: the EER differs from the first system's, p < {SIGNIFICANT} (two-sided, paired bootstrap over speakers; each"
    " row by itself)."
)


class Line(NamedTuple):
    """A row of the table: one system in one condition, or on one trial list."""

    condition: str
    system: str
    cells: tuple[str, ...]
    """EER with its interval, change, and the least detection costs."""


def header(table: Table) -> tuple[str, ...]:
    """Return the names of the table's columns."""
    first = "trial list" if read_list_metrics(table) else "condition"
    return (first, "system", "EER, %", "change", *(f"minDCF {key.removeprefix(COST)}" for key in costs(table)))


def rows(content: Mapping[str, Any]) -> list[Line]:
    """Return an encoder's rows as text: a system a row, condition by condition, then the means over the noisy ones."""
    table, lines, keys = content[RESULTS], [], costs(content[RESULTS])
    means = {MEAN: content.get(MEAN_NOISY), BOTH: content.get(MEAN_BOTH)}
    for condition, systems in (table | {name: mean for name, mean in means.items() if mean}).items():
        first = next(iter(systems.values()))["eer"]
        for system, figures in systems.items():
            change = "" if system == systems_of(table)[0] else _change(first, figures["eer"])
            least = (f"{figures[key]:.3f}" if key in figures else "" for key in keys)
            cells = (_with_interval(figures), change + "*" * significant(figures), *least)
            lines.append(Line(condition, system, cells))
    return lines


def title(encoder: str, table: Table) -> str:
    """Return what stands above the table of an encoder."""
    return f"{encoder}: {'trial lists' if read_list_metrics(table) else 'enrolment clean, test in the condition'}"


def terminal_table(encoder: str, content: Mapping[str, Any]) -> "TerminalTable":
    """Return the table of one encoder for rich to print."""
    from rich.table import Table as TerminalTable
    from rich.text import Text

    table = content[RESULTS]
    caption = FOOTNOTE.replace("`", "") if marked(table) else None
    result = TerminalTable(title=Text(title(encoder, table)), caption=caption)
    for number, name in enumerate(header(table)):
        result.add_column(name, justify="left" if number < 2 else "right")
    last = systems_of(table)[-1]
    previous = None
    for line in rows(content):
        name = "" if line.condition == previous else line.condition
        previous = line.condition
        texts = [Text(text) for text in (name, line.system, *line.cells)]  # brackets are no markup
        result.add_row(
            *texts, end_section=line.system == last, style="bold" if line.condition in (MEAN, BOTH) else None
        )
    return result


def summary_line(encoder: str, content: Mapping[str, Any]) -> str:
    """Return one line on an encoder: the EER on clean speech and the mean over noisy conditions, or on each list."""
    table, means = content[RESULTS], _eers(content.get(MEAN_NOISY, {}))
    if read_list_metrics(table):
        return f"{encoder}: " + ", ".join(f"{name} EER {_compared(_eers(row))} %" for name, row in table.items())
    text = f"{encoder}: clean EER {_compared(_eers(table[CLEAN]))} %"
    if means:
        change = f" ({_change(*means.values())})" if len(means) == 2 else ""
        text += f", mean noisy EER {_compared(means)} %{change}"
    return text


def markdown_report(
    metrics: Mapping[str, Mapping[str, Any]],
    params: Params,
    corpus: Corpus | None,
    quality: Mapping[str, StoreQuality] | None = None,
) -> str:
    """Return the whole report in Markdown: what was done, and an encoder's error rates and quality of its store.

    Args:
        metrics: of every encoder, as `read_metrics` gives them.
        params: that they were measured with.
        corpus: that they were measured on, if it is known.
        quality: of the training stores, where they were checked.
    """
    tables = {encoder: content[RESULTS] for encoder, content in metrics.items()}
    lines = [f"# Error rates on {params.corpus}", "", *([f"{corpus.title}.", ""] if corpus else [])]
    lines += protocol_lines(tables, params, corpus)
    for encoder, table in tables.items():
        lines += ["", f"## {encoder}", "", *counts(table), ""]
        columns = header(table)
        lines += [_row(columns), "|---|---" + "|---:" * (len(columns) - 2) + "|"]
        lines += [_row((line.condition, line.system, *line.cells)) for line in rows(metrics[encoder])]
        if marked(table):
            lines += ["", FOOTNOTE]
        if quality and encoder in quality:
            lines += ["", *markdown(quality[encoder])]
    return "\n".join(lines) + "\n"


def protocol_lines(tables: Mapping[str, Table], params: Params, corpus: Corpus | None) -> list[str]:
    """Return what was done, in two sentences or a few more."""
    score, extract = params.score, params.extract
    crops = (
        "whole utterances"
        if extract.eval_frames is None
        else f"{extract.eval_crops} crops of {extract.eval_frames} frames"
    )
    both = " Both noisy: enrolment and test in the condition." if score.both_sides else ""
    trials = (
        f"Enrolment clean, test in the condition; {crops}, {score.comparison}; all ordered pairs of different"
        f" utterances, at most {score.max_trials:,}.{both}"
    )
    if all(map(read_list_metrics, tables.values())):
        trials = f"Trial lists by name; {crops}, {score.comparison}."
    return [
        f"{trials}{_disjoint(corpus)}",
        f"In brackets: 95 % interval, bootstrap over speakers ({score.bootstrap} resamples). Seed {params.seed}.",
    ]


def counts(table: Table) -> list[str]:
    """Return how many trials there are, of each list by itself."""
    firsts = {name: next(iter(row.values())) for name, row in table.items()}
    texts = {
        name: f"{figures['targets']:,} target and {figures['nontargets']:,} non-target trials."
        for name, figures in firsts.items()
    }
    return (
        [f"- {name}: {text}" for name, text in texts.items()]
        if read_list_metrics(table)
        else [next(iter(texts.values()))]
    )


def _disjoint(corpus: Corpus | None) -> str:
    if corpus is None:
        return ""
    if corpus.overlap:
        return " Train and test may share speakers or sounds: these figures are no evidence."
    return " Train and test share no speakers, noise, music, rooms or background talkers."


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _eers(systems: Mapping[str, Any]) -> dict[str, float]:
    return {name: figures["eer"] for name, figures in systems.items()}


def _compared(values: Mapping[str, float]) -> str:
    """Return EERs of systems: one, before and after, or several by name."""
    if len(values) <= 2:
        return " -> ".join(f"{value:.2f}" for value in values.values())
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _with_interval(figures: Mapping[str, Any]) -> str:
    interval = figures.get("eer_ci")
    return f"{figures['eer']:.2f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _change(before: float, after: float) -> str:
    change = relative_change(before, after)
    return "–" if change is None else f"{100 * change:+.0f} %"
