"""The result table as text for the terminal, Markdown and the page, and the report in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
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
    any_significant,
    cost_names,
    has_trial_lists,
    is_significant,
    relative_change,
    system_names,
)
from pipeline.utils.markdown import escape_markdown

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

MEAN, BOTH = "mean noisy", "mean both noisy"
FOOTNOTE = (
    f"`*`: the EER differs from the first system's, p < {SIGNIFICANT} (two-sided paired bootstrap over speakers,"
    " separately for each row)."
)


class TableRow(NamedTuple):
    """A row of the table: one system in one condition, or on one trial list."""

    condition: str
    system: str
    cells: tuple[str, ...]
    """The EER with its interval, its change, and the minimum detection costs."""


def column_names(table: Table) -> tuple[str, ...]:
    """Return the names of the table's columns."""
    first = "trial list" if has_trial_lists(table) else "condition"
    return (first, "system", "EER, %", "change", *(f"minDCF {key.removeprefix(COST)}" for key in cost_names(table)))


def format_rows(content: Mapping[str, Any]) -> list[TableRow]:
    """Return an encoder's rows as text: one for each condition and system, then the means over noisy conditions."""
    table, rows, keys = content[RESULTS], [], cost_names(content[RESULTS])
    means = {MEAN: content.get(MEAN_NOISY), BOTH: content.get(MEAN_BOTH)}
    for condition, systems in (table | {name: mean for name, mean in means.items() if mean}).items():
        first = next(iter(systems.values()))["eer"]
        for system, figures in systems.items():
            change = "" if system == system_names(table)[0] else _format_change(first, figures["eer"])
            costs = (f"{figures[key]:.3f}" if key in figures else "" for key in keys)
            cells = (_format_interval(figures), change + "*" * is_significant(figures), *costs)
            rows.append(TableRow(condition, system, cells))
    return rows


def terminal_table(encoder: str, content: Mapping[str, Any]) -> "TerminalTable":
    """Return the table of one encoder for rich to print."""
    from rich.table import Table as TerminalTable
    from rich.text import Text

    table = content[RESULTS]
    caption = FOOTNOTE.replace("`", "") if any_significant(table) else None
    kind = "trial lists" if has_trial_lists(table) else "enrolment clean, test in the condition"
    result = TerminalTable(title=Text(f"{encoder}: {kind}"), caption=caption)
    for number, name in enumerate(column_names(table)):
        result.add_column(name, justify="left" if number < 2 else "right")
    last = system_names(table)[-1]
    previous = None
    for row in format_rows(content):
        name = "" if row.condition == previous else row.condition
        previous = row.condition
        texts = [Text(text) for text in (name, row.system, *row.cells)]  # as Text, brackets are not markup
        result.add_row(*texts, end_section=row.system == last, style="bold" if row.condition in (MEAN, BOTH) else None)
    return result


def summary_line(encoder: str, content: Mapping[str, Any]) -> str:
    """Return one line about an encoder: its clean EER and mean noisy EER, or its EER on each list."""
    table, means = content[RESULTS], _read_eers(content.get(MEAN_NOISY, {}))
    if has_trial_lists(table):
        lists = (f"{name} EER {_format_systems(_read_eers(row))} %" for name, row in table.items())
        return f"{encoder}: " + ", ".join(lists)
    text = f"{encoder}: clean EER {_format_systems(_read_eers(table[CLEAN]))} %"
    if means:
        change = f" ({_format_change(*means.values())})" if len(means) == 2 else ""
        text += f", mean noisy EER {_format_systems(means)} %{change}"
    return text


def markdown_report(
    metrics: Mapping[str, Mapping[str, Any]],
    params: Params,
    corpus: Corpus | None,
    quality: Mapping[str, StoreQuality] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the whole report in Markdown: the protocol, and for each encoder error rates and quality of its store.

    Args:
        metrics: metrics of every encoder, from `read_metrics`.
        params: parameters of the measurement.
        corpus: corpus of the measurement, if known.
        quality: quality of the training stores, if checked.
        notes: notes on every encoder, see `notes.list_notes`.
    """
    tables = {encoder: content[RESULTS] for encoder, content in metrics.items()}
    title = [f"{escape_markdown(corpus.title)}.", ""] if corpus else []
    lines = [f"# Error rates on {escape_markdown(params.tested_corpus)}", "", *title]
    lines += map(escape_markdown, protocol_lines(tables, params, corpus))
    for encoder, table in tables.items():
        lines += ["", f"## {escape_markdown(encoder)}", "", *map(_escape_item, describe_trials(table)), ""]
        columns = column_names(table)
        lines += [_format_cells(map(escape_markdown, columns)), "|---|---" + "|---:" * (len(columns) - 2) + "|"]
        for row in format_rows(metrics[encoder]):
            lines.append(_format_cells((*map(escape_markdown, (row.condition, row.system)), *row.cells)))
        if any_significant(table):
            lines += ["", FOOTNOTE]
        lines += (
            ["", *(f"- {escape_markdown(note)}" for note in notes[encoder])] if notes and notes.get(encoder) else []
        )
        if quality and encoder in quality:
            lines += ["", *markdown(quality[encoder])]
    return "\n".join(lines) + "\n"


def protocol_lines(tables: Mapping[str, Table], params: Params, corpus: Corpus | None) -> list[str]:
    """Return the protocol in a few sentences."""
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
    if all(map(has_trial_lists, tables.values())):
        trials = f"Trial lists by name; {crops}, {score.comparison}."
    several = f" Trained on {', '.join(params.corpus)}." if len(params.corpus) > 1 else ""
    return [
        f"{trials}{_describe_overlap(corpus)}{several}",
        f"In brackets: 95 % interval, bootstrap over speakers ({score.bootstrap} resamples). Seed {params.seed}.",
    ]


def describe_trials(table: Table) -> list[str]:
    """Return sentences with the number of trials, one for each trial list."""
    firsts = {name: next(iter(row.values())) for name, row in table.items()}
    texts = {
        name: f"{figures['targets']:,} target and {figures['nontargets']:,} non-target trials."
        for name, figures in firsts.items()
    }
    return (
        [f"- {name}: {text}" for name, text in texts.items()]
        if has_trial_lists(table)
        else [next(iter(texts.values()))]
    )


def _describe_overlap(corpus: Corpus | None) -> str:
    if corpus is None:
        return ""
    if corpus.overlap:
        return " Train and test may share speakers or sounds, so these figures are not evidence."
    return " Train and test share no speakers, noise, music, rooms or background talkers."


def _escape_item(line: str) -> str:
    """Return a line of `describe_trials`, which may be an item of a list, in Markdown."""
    mark = "- " if line.startswith("- ") else ""
    return mark + escape_markdown(line.removeprefix(mark))


def _format_cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _read_eers(systems: Mapping[str, Any]) -> dict[str, float]:
    return {name: figures["eer"] for name, figures in systems.items()}


def _format_systems(values: Mapping[str, float]) -> str:
    """Return the EERs of systems as text: a single one, before and after, or several by name."""
    if len(values) <= 2:
        return " -> ".join(f"{value:.2f}" for value in values.values())
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _format_interval(figures: Mapping[str, Any]) -> str:
    interval = figures.get("eer_ci")
    return f"{figures['eer']:.2f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _format_change(before: float, after: float) -> str:
    change = relative_change(before, after)
    return "–" if change is None else f"{100 * change:+z.0f} %"
