"""The limits as a Markdown page, with all encoders side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from pipeline.data.trials.left_out import note_failed
from pipeline.report.limits import gain, stability, transfer
from pipeline.report.limits.gain import SignChange
from pipeline.report.limits.gaps import CLEAN, ENHANCED, PREPARED, RAW, Gap
from pipeline.report.limits.groups import HELD, HELD_CROPS, TEST
from pipeline.report.limits.limits import Findings
from pipeline.report.plots import Plot
from pipeline.scoring.distances import OTHER

SPACES = (RAW, PREPARED, ENHANCED)
TRAININGS = (
    *("SNR, dB", "loss untrained", "best", "last", "best / untrained", "gradient, mean", "largest"),
    *("held-out EER raw, %", "seed", "test clean EER, %", "test noisy EER, %"),
)
MATCHED = ("condition", "gap", "group", "targets", "EER raw, %", "EER seed, %", "gain, points", "change")


def render_limits(findings: Mapping[str, Findings], plots: Sequence[Plot], folder: str) -> str:
    """Return the page: a summary, then each part with its plot from `folder`, a path relative to the page."""
    links = {plot.name: f"![{plot.title}]({folder}/limits-{plot.name}.svg)" for plot in plots}
    figures = {plot.name: [links[plot.name], "", plot.caption, ""] for plot in plots}
    parts = [
        ("## In short", None, summarise(findings)),
        ("## How far corruption moves embeddings", "gap", _gap_table(findings)),
        ("## Gain by gap", "gain", _gain_tables(findings)),
        ("## Training as the gap grows", "stability", _stability_table(findings)),
        ("## From training to unseen speakers and sounds", "transfer", _transfer_tables(findings)),
    ]
    lines: list[str] = []
    for heading, plot, text in parts:
        if text:
            lines += [heading, "", *figures.get(plot or "", []), *text, ""]
    return "\n".join(lines)


def summarise(findings: Mapping[str, Findings]) -> list[str]:
    """Return a table of the main figures, with one column for each encoder."""
    rows: dict[str, Callable[[Findings], str]] = {
        "median gap of the test conditions, as a share of the gap between two speakers": _relative_gap,
        "gap from which enhancement helps": lambda each: format_sign_change(each.sign_changes[RAW][0]),
        "gap at which enhancement stops helping": lambda each: format_sign_change(each.sign_changes[RAW][1]),
        "gain in the range of the largest gaps, points of EER": lambda each: _bracketed(each.bins[RAW][-1].gain, 2),
        "the same as a share of the raw EER": lambda each: f"{_share(each.bins[RAW][-1]):z.0%}",
        "EER reduction, held-out training speakers": lambda each: _reduction(each, (HELD, HELD_CROPS), transfer.MEAN),
        "EER reduction, test speakers, other sounds": lambda each: _reduction(each, (TEST,), transfer.MEAN),
        "the same, reverberation alone": lambda each: _reduction(each, (TEST,), "reverb"),
    }
    lines = _header(["", *findings], numbers=len(findings))
    lines += [_row([name, *(figure(each) for each in findings.values())]) for name, figure in rows.items()]
    for name, each in findings.items():
        lines += ["", f"{name}: {note_failed(each.failed)}."] if each.failed else []
    return lines


def format_sign_change(change: SignChange) -> str:
    """Return a sign change with its interval as text, or that there is none in the range."""
    if not np.isfinite(change.value):
        return f"none found in the range, nor in {1 - change.share:.0%} of the bootstrap's draws"
    return f"{change.value:z.2f} (95 %: {_format_end(change.low)} to {_format_end(change.high)})"


def _format_end(value: float) -> str:
    return f"{value:z.2f}" if np.isfinite(value) else "below the range" if value < 0 else "beyond the range"


def _relative_gap(each: Findings) -> str:
    speakers = next((gap.quantiles[2] for gap in each.gaps if gap.kind == OTHER and gap.space == RAW), None)
    noisy = [gap.quantiles[2] for gap in each.gaps if gap.group == TEST and gap.space == RAW and gap.view != CLEAN]
    return f"{min(noisy) / speakers:.0%} to {max(noisy) / speakers:.0%}" if speakers and noisy else ""


def _change(gap_bin: gain.GapBin) -> str:
    return f"{-_share(gap_bin):+z.0%}{'*' if gap_bin.p_value < 0.05 else ''}" if gap_bin.raw[0] else "–"


def _share(gap_bin: gain.GapBin) -> float:
    return gap_bin.gain[0] / gap_bin.raw[0] if gap_bin.raw[0] else np.nan


def _reduction(each: Findings, groups: Sequence[str], condition: str) -> str:
    by_key = {(row.group, row.condition): row for row in each.groups}
    row = next((by_key[group, condition] for group in groups if (group, condition) in by_key), None)
    return _format_share(row.reduction) if row else ""


def _gap_table(findings: Mapping[str, Findings]) -> list[str]:
    """Return a table of medians by group, view and SNR, with a column for each encoder and vector space."""
    tables = {
        name: {(gap.group, gap.view, gap.kind, gap.snr[0], gap.snr[1], gap.space): gap for gap in each.gaps}
        for name, each in findings.items()
    }
    keys = dict.fromkeys(_format_key(key[:5]) for table in tables.values() for key in table)
    lines = _header(
        ["vectors", "view", "corruption", "SNR, dB", *(f"{name} {space}" for name in findings for space in SPACES)],
        numbers=3 * len(findings),
    )
    for key in keys:
        cells = list(key)
        for table in tables.values():
            by_key = {(*_format_key(each[:5]), each[5]): gap for each, gap in table.items()}
            cells += [_format_gap(by_key.get((*key, space))) for space in SPACES]
        lines.append(_row(cells))
    note = (
        "Medians of the distance of unit vectors, with 5 and 95 %: as encoded (raw), in the space of the model's"
        " preconditioner (prepared), and after enhancement of both vectors (enhanced). Each space has its own scale:"
        " compare with the last rows, distances between clean utterances."
    )
    return [note, "", *lines]


def _format_key(key: tuple[str, str, str, float, float]) -> tuple[str, ...]:
    """Return the key of a row as text, because NaN is not equal to itself."""
    low, high = key[3:]
    snr = "" if np.isnan(low) else f"{low:zg}" if low == high else f"{low:zg} to {high:zg}"
    return (*key[:3], snr)


def _format_gap(gap: Gap | None) -> str:
    return f"{gap.quantiles[2]:.2f} [{gap.quantiles[0]:.2f}, {gap.quantiles[4]:.2f}]" if gap else ""


def _gain_tables(findings: Mapping[str, Findings]) -> list[str]:
    lines = []
    for name, each in findings.items():
        starts, stops = each.sign_changes[RAW]
        lines += [
            f"{name}. Gap from which enhancement helps: {format_sign_change(starts)}.",
            f"Gap at which enhancement stops helping: {format_sign_change(stops)}.",
            "",
            *_header(["gap", "mean", "targets", "EER raw, %", "EER seed, %", "gain, points", "change"], numbers=6),
        ]
        for gap_bin in each.bins[RAW]:
            span = "0 (clean)" if gap_bin.high == 0 else f"{gap_bin.low:.3f} to {gap_bin.high:.3f}"
            lines.append(_row([span, f"{gap_bin.mean:.3f}", *_format_gain(gap_bin)]))
        lines.append("")
    return [*lines, "`*`: p < 0.05, paired bootstrap over speakers, separately for each row."]


def _stability_table(findings: Mapping[str, Findings]) -> list[str]:
    lines = []
    for name, each in findings.items():
        if not each.trainings:
            continue
        measured = [row for row in each.trainings if "failed" not in row]
        lines += [
            f"{name}, {len({row['seed'] for row in each.trainings})} seeds: mean ± half the range over them.",
            "",
            *_header(TRAININGS, numbers=len(TRAININGS)),
        ]
        for snr in dict.fromkeys(row["snr"] for row in each.trainings):
            rows = [row for row in measured if row["snr"] == snr]
            names = ("untrained_loss", "best_loss", "final_loss")
            cells = [_spread([row[key] for row in rows], 4) for key in names]
            cells.append(_spread([row["best_loss"] / row["untrained_loss"] for row in rows], 4))
            for key, digits in (("gradient_mean", 3), ("gradient_max", 3)):
                cells.append(_spread([row[key] for row in rows if key in row], digits))
            for key in ("held_out_raw_eer", "held_out_seed_eer"):
                cells.append(_spread([row[key] for row in rows if key in row], 2))
            cells.append(_spread([row["test"][CLEAN] for row in rows], 2))
            cells.append(_spread([mean_noisy(row) for row in rows], 2))
            lines.append(_row([f"{snr:zg}", *cells]))
        stopped = sum("stopped" in row or "failed" in row for row in each.trainings)
        lines += ["", f"Trainings that failed or were aborted: {stopped} of {len(each.trainings)}.", ""]
    return lines


def _transfer_tables(findings: Mapping[str, Findings]) -> list[str]:
    lines = []
    for name, each in findings.items():
        columns = ["group", "condition", "speakers", "median gap", "EER raw, %", "EER seed, %", "reduction"]
        lines += [f"{name}:", "", *_header(columns, numbers=5)]
        for row in each.groups:
            gap = "" if np.isnan(row.gap) else f"{row.gap:.2f}"
            figures = [_bracketed(row.raw, 2), _bracketed(row.seed, 2), _format_share(row.reduction)]
            lines.append(_row([row.group, row.condition, str(row.speakers), gap, *figures]))
        lines += ["", *_header(["from", "to", "condition", "share of the reduction that is retained"], numbers=1)]
        measured = {row.group for row in each.groups}
        for part in each.retained:
            if part.condition in ("reverb", transfer.MEAN) and (HELD not in measured or part.from_group != HELD_CROPS):
                lines.append(_row([part.from_group, part.to_group, part.condition, _format_share(part.share)]))
        lines.append("")
        if each.matched:
            lines += ["At the same gap:", "", *_header(MATCHED, numbers=6)]
            for group, condition, gap_bin in each.matched:
                span = f"{gap_bin.low:.2f} to {gap_bin.high:.2f}"
                lines.append(_row([condition, span, group, *_format_gain(gap_bin)]))
            lines.append("")
    return lines


def _format_gain(gap_bin: gain.GapBin) -> list[str]:
    figures = (_bracketed(values, 2) for values in (gap_bin.raw, gap_bin.seed, gap_bin.gain))
    return [f"{gap_bin.targets:,}", *figures, _change(gap_bin)]


def mean_noisy(row: stability.TrainingRow) -> float:
    """Return the mean EER in percent of a training over all conditions except clean."""
    return float(np.mean([value for name, value in row["test"].items() if name != CLEAN]))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    return f"{np.mean(values):z.{digits}f} ± {np.ptp(values) / 2:.{digits}f}"


def _bracketed(values: tuple[float, float, float], digits: int) -> str:
    return f"{values[0]:z.{digits}f} [{values[1]:z.{digits}f}, {values[2]:z.{digits}f}]"


def _format_share(values: tuple[float, float, float]) -> str:
    if not np.isfinite(values[0]):
        return "–"
    return f"{100 * values[0]:z.0f} % [{100 * values[1]:z.0f}, {100 * values[2]:z.0f}]"


def _header(names: Sequence[str], numbers: int) -> list[str]:
    return [_row(names), "|" + "---|" * (len(names) - numbers) + "---:|" * numbers]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
