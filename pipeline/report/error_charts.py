"""Plots of error rates: by condition, against SNR, DET curves, histograms of scores. They need the extra `plots`."""

import re
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from pipeline.config.conditions import condition_snr, is_condition
from pipeline.report.results import CLEAN, Table, system_names
from pipeline.report.series import CsvRow
from pipeline.report.style import (
    DET_TICKS,
    DET_WINDOW,
    NONTARGETS,
    TARGETS,
    Layers,
    colours,
    det_labels,
    inline,
    on_probit,
)
from pipeline.utils.charts import FAINT

_POINTS = 150  # points of a DET curve on the page
_SNR = re.compile(r"(noise|music|babble)(-?\d+)")


def system_colour(systems: Sequence[str]) -> alt.Color:
    """Return an encoding of the system by colour."""
    scale = alt.Scale(domain=list(systems), range=colours(systems))
    return alt.Color("system:N", scale=scale, title=None, legend=alt.Legend(orient="top"))


def eer_chart(table: Table) -> Layers:
    """Return a chart of the EER of every system in every row, with its interval."""
    systems = system_names(table)
    rows = [{"row": name, **row} for name, figures in table.items() for row in _eer_rows(figures)]
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("row:N", sort=list(table), title=None, axis=alt.Axis(grid=False, ticks=False, domain=False)),
        yOffset=alt.YOffset("system:N", sort=systems, scale=alt.Scale(paddingOuter=0.4)),
        color=system_colour(systems),
        tooltip=_tooltip("row"),
    )
    intervals = base.mark_rule(strokeWidth=2, opacity=0.55).encode(x="low:Q", x2="high:Q")
    points = base.mark_point(filled=True, size=55, opacity=1).encode(x=alt.X("eer:Q", title="EER, %"))
    return alt.layer(intervals, points).properties(width=780, height=alt.Step(max(11, 26 // len(systems))))


def snr_chart(table: Table) -> Layers | None:
    """Return a chart of the EER against the SNR of each kind of noise, or None if no condition has an SNR."""
    systems = system_names(table)
    levels = [(name, *_kind_and_snr(name)) for name in table]
    measured = [(name, kind, snr) for name, kind, snr in levels if snr is not None]
    if not measured:
        return None
    kinds, snrs = list(dict.fromkeys(kind for _, kind, _ in measured)), sorted({snr for *_, snr in measured})
    shift = 0.012 * ((snrs[-1] - snrs[0]) or 10.0)  # keeps intervals of the same SNR apart
    beside = {snr: [kind for _, kind, other in measured if other == snr] for snr in snrs}
    rows = [
        {"kind": kind, "snr": snr, "x": snr + shift * (beside[snr].index(kind) - (len(beside[snr]) - 1) / 2), **row}
        for name, kind, snr in measured
        for row in _eer_rows(table[name])
    ]
    base = alt.Chart(inline(rows)).encode(
        x=alt.X(
            "x:Q", title="SNR, dB", scale=alt.Scale(padding=30, nice=False, zero=False), axis=alt.Axis(values=snrs)
        ),
        y=alt.Y("eer:Q", title="EER, %"),
        color=system_colour(systems),
        tooltip=_tooltip("kind", "snr"),
    )
    legend = alt.Legend(orient="right", symbolStrokeColor=FAINT, symbolFillColor="transparent")
    lines = base.mark_line(strokeWidth=2).encode(detail="kind:N")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        shape=alt.Shape("kind:N", sort=kinds, title="corruption", legend=legend)
    )
    intervals = base.mark_rule(opacity=0.4).encode(y=alt.Y("low:Q", title="EER, %"), y2="high:Q")
    layers: list[alt.Chart] = [intervals, lines, points]
    if CLEAN in table:
        level = alt.Chart(inline(_eer_rows(table[CLEAN]))).mark_rule(strokeDash=[2, 3])
        layers.append(level.encode(y="eer:Q", color=system_colour(systems), tooltip=_tooltip()))
    return alt.layer(*layers).properties(width=700, height=320)


def det_chart(det: Sequence[CsvRow], systems: Sequence[str], names: Sequence[str]) -> alt.FacetChart | None:
    """Return the DET curves of the systems, one panel for each condition or trial list."""
    low, high = map(on_probit, DET_WINDOW)
    rows = [row for curve in _split_curves(det).values() for row in _clip_curve(curve)]
    if not rows:
        return None
    ticks = [on_probit(tick) for tick in DET_TICKS]
    axis = alt.Axis(values=ticks, tickCount=len(ticks), labelExpr=det_labels(), labelOverlap=False)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    curves = (
        alt.Chart()
        .mark_line(clip=True, strokeWidth=1.8, interpolate="linear")
        .encode(
            x=alt.X("x:Q", scale=scale, axis=axis, title="false alarms, %"),
            y=alt.Y("y:Q", scale=scale, axis=axis, title="misses, %"),
            order="step:Q",
            color=system_colour(systems),
        )
    )
    ends: list[CsvRow] = [{"a": low, "b": low}, {"a": high, "b": high}]
    equal = alt.Chart(inline(ends)).mark_line(color=FAINT, strokeDash=[2, 3], strokeWidth=1).encode(x="a:Q", y="b:Q")
    panel = alt.layer(equal, curves).properties(width=205, height=205)
    return panel.facet(facet=_panel(names), columns=4, data=inline(rows))


def histogram_chart(
    histogram: Sequence[CsvRow], systems: Sequence[str], names: Sequence[str]
) -> alt.HConcatChart | None:
    """Return a chart of the shares of targets and non-targets by score, one column for each system."""
    shares = _shares(histogram)
    columns = [
        alt.Chart(inline(rows))
        .mark_rect(opacity=0.6)
        .encode(
            x=alt.X("from:Q", title="score", scale=alt.Scale(zero=False, nice=False)),
            x2="to:Q",
            y=alt.Y("share:Q", title=None, axis=alt.Axis(labels=False, ticks=False, grid=False, domain=False)),
            y2=alt.datum(0),
            color=alt.Color(
                "trials:N",
                title=None,
                scale=alt.Scale(domain=["non-targets", "targets"], range=[NONTARGETS, TARGETS]),
                legend=alt.Legend(orient="top"),
            ),
        )
        .properties(width=max(180, 760 // len(systems)), height=44)
        .facet(row=_row_panel(names, labels=number == 0), spacing=8)
        .properties(title=alt.Title(system, anchor="middle", fontSize=12))
        for number, system in enumerate(systems)
        if (rows := [row for row in shares if row["system"] == system])
    ]
    return alt.hconcat(*columns, spacing=24) if columns else None


def _panel(names: Sequence[str]) -> alt.Facet:
    return alt.Facet("condition:N", sort=list(names), title=None)


def _row_panel(names: Sequence[str], labels: bool) -> alt.Row:
    header = alt.Header(labels=labels, labelAngle=0, labelAlign="left", labelAnchor="middle", labelPadding=8)
    return alt.Row("condition:N", sort=list(names), title=None, header=header)


def _tooltip(*first: str) -> list[alt.Tooltip]:
    figures = [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("eer", "low", "high")]
    return [*(alt.Tooltip(f"{name}:N") for name in first), alt.Tooltip("system:N"), *figures]


def _eer_rows(systems: Mapping[str, Mapping[str, object]]) -> list[CsvRow]:
    """Return a row for each system: its EER, and its interval, or the EER twice if there is none."""
    rows: list[CsvRow] = []
    for system, figures in systems.items():
        eer = float(str(figures["eer"]))
        interval = figures.get("eer_ci")
        low, high = interval if isinstance(interval, list) else (eer, eer)
        rows.append({"system": system, "eer": eer, "low": low, "high": high})
    return rows


def _kind_and_snr(name: str) -> tuple[str, float | None]:
    """Return the name of a row without its SNR, and the SNR in dB if there is one."""
    condition = name.rpartition("/")[2]
    if not is_condition(condition):
        return name, None
    return _SNR.sub(r"\1", name), condition_snr(condition)


def _split_curves(det: Sequence[CsvRow]) -> dict[tuple[str, str], list[CsvRow]]:
    curves: dict[tuple[str, str], list[CsvRow]] = {}
    for row in det:
        curves.setdefault((str(row["condition"]), str(row["system"])), []).append(row)
    return curves


def _clip_curve(curve: Sequence[CsvRow]) -> list[CsvRow]:
    """Return the visible part of a curve plus one point on each side, thinned, in probit coordinates."""
    rates = np.array([[float(row["false_alarm"]), float(row["miss"])] for row in curve])
    inside = np.flatnonzero((rates >= DET_WINDOW[0]).all(axis=1) & (rates <= DET_WINDOW[1]).all(axis=1))
    first, last = (inside[0], inside[-1]) if len(inside) else (0, len(curve) - 1)
    points = np.arange(max(first - 1, 0), min(last + 1, len(curve) - 1) + 1)
    points = np.unique(points[np.linspace(0, len(points) - 1, _POINTS).round().astype(int)])
    names = {name: curve[0][name] for name in ("condition", "system")}
    return [
        {**names, "step": step, "x": on_probit(rates[index, 0]), "y": on_probit(rates[index, 1])}
        for step, index in enumerate(points)
    ]


def _shares(histogram: Sequence[CsvRow]) -> list[CsvRow]:
    """Return each non-empty bin with its share of the trials of a class."""
    totals: dict[tuple[object, object, str], float] = {}
    for row in histogram:
        for kind in ("targets", "nontargets"):
            key = (row["condition"], row["system"], kind)
            totals[key] = totals.get(key, 0.0) + float(row[kind])
    return [
        {
            **{name: row[name] for name in ("condition", "system", "from", "to")},
            "trials": "targets" if kind == "targets" else "non-targets",
            "share": float(row[kind]) / totals[row["condition"], row["system"], kind],
        }
        for row in histogram
        for kind in ("nontargets", "targets")
        if float(row[kind])
    ]
