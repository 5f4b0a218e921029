"""The limits as a page in Markdown, all encoders side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from pipeline.report.limits import gain, stability, transfer
from pipeline.report.limits.gain import Turn
from pipeline.report.limits.gaps import CLEAN, ENHANCED, PREPARED, RAW, Gap
from pipeline.report.limits.groups import HELD, HELD_CROPS, TEST
from pipeline.report.limits.limits import Findings
from pipeline.report.plots import Plot
from pipeline.scoring.distances import OTHER

All = Mapping[str, Findings]
"""By encoder."""
SPACES = (RAW, PREPARED, ENHANCED)
TRAININGS = (
    *("SNR, dB", "loss untrained", "best", "last", "best / untrained", "gradient, mean", "greatest"),
    *("held-out EER raw, %", "seed", "test clean EER, %", "test noisy EER, %"),
)
MATCHED = ("condition", "gap", "group", "targets", "EER raw, %", "EER seed, %", "gain, points", "change")


def markdown(found: All, pictures: Sequence[Plot], folder: str) -> str:
    """Return the page: a summary, then each part with its picture, which lie in `folder` as seen from the page."""
    links = {plot.name: f"![{plot.title}]({folder}/limits-{plot.name}.svg)" for plot in pictures}
    shown = {plot.name: [links[plot.name], "", plot.caption, ""] for plot in pictures}
    parts = [
        ("## In short", None, summary(found)),
        ("## How far corruption moves embeddings", "gap", _gap_table(found)),
        ("## Gain by gap", "gain", _gain_tables(found)),
        ("## Training as the gap grows", "stability", _stability_table(found)),
        ("## From training to what training has not heard", "transfer", _transfer_tables(found)),
    ]
    lines: list[str] = []
    for heading, picture, text in parts:
        if text:
            lines += [heading, "", *shown.get(picture or "", []), *text, ""]
    return "\n".join(lines)


def summary(found: All) -> list[str]:
    """Return the figures that matter most, a line each and an encoder a column."""
    rows: dict[str, Callable[[Findings], str]] = {
        "gap of the test conditions, median, as a share of that between two speakers": _relative_gap,
        "gap from which enhancement helps": lambda each: turn_text(each.turns[RAW][0]),
        "gap at which it stops to help": lambda each: turn_text(each.turns[RAW][1]),
        "gain in the bin of the largest gaps, points of EER": lambda each: _bracketed(each.bins[RAW][-1].gain, 2),
        "the same as a share of the raw EER": lambda each: f"{_share(each.bins[RAW][-1]):.0%}",
        "EER reduction, held-out training speakers": lambda each: _reduction(each, (HELD, HELD_CROPS), transfer.MEAN),
        "EER reduction, test speakers, other sounds": lambda each: _reduction(each, (TEST,), transfer.MEAN),
        "the same, reverberation alone": lambda each: _reduction(each, (TEST,), "reverb"),
    }
    lines = _header(["", *found], numbers=len(found))
    return lines + [_row([name, *(figure(each) for each in found.values())]) for name, figure in rows.items()]


def turn_text(turn: Turn) -> str:
    """Return a turn and its interval, or that there is none in the range."""
    if not np.isfinite(turn.value):
        return f"none found in the range, nor in {1 - turn.share:.0%} of the bootstrap's draws"
    return f"{turn.value:.2f} (95 %: {_end(turn.low)} to {_end(turn.high)})"


def _end(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "below the range" if value < 0 else "beyond the range"


def _relative_gap(each: Findings) -> str:
    far = next((gap.quantiles[2] for gap in each.gaps if gap.kind == OTHER and gap.space == RAW), None)
    noisy = [gap.quantiles[2] for gap in each.gaps if gap.group == TEST and gap.space == RAW and gap.view != CLEAN]
    return f"{min(noisy) / far:.0%} to {max(noisy) / far:.0%}" if far and noisy else ""


def _change(one: gain.Bin) -> str:
    return f"{-_share(one):+.0%}{'*' if one.p_value < 0.05 else ''}" if one.raw[0] else "–"


def _share(one: gain.Bin) -> float:
    return one.gain[0] / one.raw[0] if one.raw[0] else np.nan


def _reduction(each: Findings, groups: Sequence[str], condition: str) -> str:
    at = {(row.group, row.condition): row for row in each.groups}
    row = next((at[group, condition] for group in groups if (group, condition) in at), None)
    return _percent(row.reduction) if row else ""


def _gap_table(found: All) -> list[str]:
    """Return medians by group, view and SNR; spaces of every encoder side by side."""
    tables = {
        name: {(gap.group, gap.view, gap.kind, gap.snr[0], gap.snr[1], gap.space): gap for gap in each.gaps}
        for name, each in found.items()
    }
    keys = dict.fromkeys(_plain(key[:5]) for table in tables.values() for key in table)
    lines = _header(
        ["vectors", "view", "corruption", "SNR, dB", *(f"{name} {space}" for name in found for space in SPACES)],
        numbers=3 * len(found),
    )
    for key in keys:
        cells = list(key)
        for table in tables.values():
            at = {(*_plain(each[:5]), each[5]): gap for each, gap in table.items()}
            cells += [_gap_text(at.get((*key, space))) for space in SPACES]
        lines.append(_row(cells))
    note = (
        "Medians of the distance of unit vectors, with 5 and 95 %: as encoded (raw), in the space of the model's"
        " preconditioner (prepared), and after enhancement, where the clean vectors are enhanced, too. Each space has a"
        " scale of its own: hold it against the last rows, distances between clean utterances."
    )
    return [note, "", *lines]


def _plain(key: tuple[str, str, str, float, float]) -> tuple[str, ...]:
    """Return the key of a row as text, for NaN is not equal to itself."""
    low, high = key[3:]
    snr = "" if np.isnan(low) else f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return (*key[:3], snr)


def _gap_text(gap: Gap | None) -> str:
    return f"{gap.quantiles[2]:.2f} [{gap.quantiles[0]:.2f}, {gap.quantiles[4]:.2f}]" if gap else ""


def _gain_tables(found: All) -> list[str]:
    lines = []
    for name, each in found.items():
        starts, stops = each.turns[RAW]
        lines += [
            f"{name}. Gap from which enhancement helps: {turn_text(starts)}.",
            f"Gap at which it stops to: {turn_text(stops)}.",
            "",
            *_header(["gap", "mean", "targets", "EER raw, %", "EER seed, %", "gain, points", "change"], numbers=6),
        ]
        for one in each.bins[RAW]:
            span = "0 (clean)" if one.high == 0 else f"{one.low:.3f} to {one.high:.3f}"
            figures = [_bracketed(values, 2) for values in (one.raw, one.seed, one.gain)]
            lines.append(_row([span, f"{one.mean:.3f}", f"{one.targets:,}", *figures, _change(one)]))
        lines.append("")
    return [*lines, "`*`: p < 0.05, paired bootstrap over speakers, each row by itself."]


def _stability_table(found: All) -> list[str]:
    lines = []
    for name, each in found.items():
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
            lines.append(_row([f"{snr:g}", *cells]))
        stopped = sum("stopped" in row or "failed" in row for row in each.trainings)
        lines += ["", f"Trainings that broke off: {stopped} of {len(each.trainings)}.", ""]
    return lines


def _transfer_tables(found: All) -> list[str]:
    lines = []
    for name, each in found.items():
        columns = ["group", "condition", "speakers", "median gap", "EER raw, %", "EER seed, %", "reduction"]
        lines += [f"{name}:", "", *_header(columns, numbers=5)]
        for row in each.groups:
            gap = "" if np.isnan(row.gap) else f"{row.gap:.2f}"
            figures = [_bracketed(row.raw, 2), _bracketed(row.seed, 2), _percent(row.reduction)]
            lines.append(_row([row.group, row.condition, str(row.speakers), gap, *figures]))
        lines += ["", *_header(["from", "to", "condition", "share of the reduction that is kept"], numbers=1)]
        measured = {row.group for row in each.groups}
        for part in each.kept:
            if part.condition in ("reverb", transfer.MEAN) and (HELD not in measured or part.source != HELD_CROPS):
                lines.append(_row([part.source, part.goal, part.condition, _percent(part.share)]))
        lines.append("")
        if each.matched:
            lines += ["At the same gap:", "", *_header(MATCHED, numbers=6)]
            for group, condition, one in each.matched:
                span = f"{one.low:.2f} to {one.high:.2f}"
                figures = [_bracketed(values, 2) for values in (one.raw, one.seed, one.gain)]
                lines.append(_row([condition, span, group, f"{one.targets:,}", *figures, _change(one)]))
            lines.append("")
    return lines


def mean_noisy(row: stability.Row) -> float:
    """Return the mean EER in percent of a training over all conditions but clean."""
    return float(np.mean([value for name, value in row["test"].items() if name != CLEAN]))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.{digits}f} ± {np.ptp(values) / 2:.{digits}f}"


def _bracketed(values: tuple[float, float, float], digits: int) -> str:
    return f"{values[0]:.{digits}f} [{values[1]:.{digits}f}, {values[2]:.{digits}f}]"


def _percent(values: tuple[float, float, float]) -> str:
    if not np.isfinite(values[0]):
        return "–"
    return f"{100 * values[0]:.0f} % [{100 * values[1]:.0f}, {100 * values[2]:.0f}]"


def _header(names: Sequence[str], numbers: int) -> list[str]:
    return [_row(names), "|" + "---|" * (len(names) - numbers) + "---:|" * numbers]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
