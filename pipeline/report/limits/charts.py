"""Plots of the limits: gap against SNR, gain against gap, trainings, and transfer. They need the extra `plots`."""

from collections.abc import Mapping

import altair as alt
import numpy as np

from pipeline.report.limits.gaps import CLEAN, ENHANCED, PREPARED, RAW
from pipeline.report.limits.groups import FIXED, HELD, SAME_SOUNDS, TEST, TRAIN, TRAINED
from pipeline.report.limits.limits import Findings
from pipeline.report.limits.page import mean_noisy
from pipeline.report.limits.transfer import MEAN
from pipeline.report.plots import Plot
from pipeline.report.series import CsvRow
from pipeline.report.style import BASELINE, OTHERS, Layers, inline
from pipeline.scoring.distances import OTHER, SAME
from pipeline.utils.charts import FAINT

REFERENCES = (("same", SAME), ("other", OTHER))
"""The columns of distances between clean utterances, and their kinds."""
Chart = alt.FacetChart | alt.HConcatChart | alt.VConcatChart | Layers


def build_limits_plots(findings: Mapping[str, Findings]) -> list[Plot]:
    """Return the plots for which there is data, given the findings of each encoder."""
    charts: list[tuple[str, str, str, Chart | None]] = [
        (
            "gap",
            "Gap against SNR",
            "Distance between the unit vectors of a clean and a noisy crop: median, middle half, 5 to 95 %."
            " Dotted: medians between clean utterances of one speaker, and of two.",
            gap_chart(findings),
        ),
        (
            "gain",
            "EER against gap",
            "EER of raw and enhanced vectors by the gap of the test side, with 95 % intervals.",
            gain_chart(findings),
        ),
        (
            "stability",
            "Training on noise of one SNR",
            "Each dot is a training with another seed. Lines connect the means.",
            stability_chart(findings),
        ),
        (
            "transfer",
            "Gain on unseen speakers and sounds",
            "Relative reduction of the EER with its 95 % interval, from training data to unseen speakers and sounds.",
            transfer_chart(findings),
        ),
    ]
    return [
        Plot(name, title, caption, {"description": f"{title}. {caption}", **chart.to_dict()})
        for name, title, caption, chart in charts
        if chart is not None
    ]


def gap_chart(findings: Mapping[str, Findings]) -> alt.FacetChart | None:
    """Return a chart of gap against SNR, with a row for each encoder and a column for each vector space.

    It shows views with one SNR each, or if there are none, training crops.
    """
    rows: list[CsvRow] = []
    for encoder, each in findings.items():
        measured = [gap for gap in each.gaps if not np.isnan(gap.snr[0])]
        chosen = [gap for gap in measured if gap.group == FIXED] or [
            gap for gap in measured if gap.group == TRAIN and gap.kind == "noise"
        ]
        levels = {(gap.space, gap.kind): gap.quantiles[2] for gap in each.gaps if gap.kind in (SAME, OTHER)}
        for gap in chosen:
            values = zip(("p5", "p25", "p50", "p75", "p95"), gap.quantiles, strict=True)
            row: CsvRow = {"encoder": encoder, "space": gap.space, "snr": sum(gap.snr) / 2, **dict(values)}
            rows.append(
                row | {name: levels[gap.space, kind] for name, kind in REFERENCES if (gap.space, kind) in levels}
            )
    if not rows:
        return None
    base = alt.Chart().encode(x=alt.X("snr:Q", title="SNR, dB"), color=_space_colour())
    whole = base.mark_area(opacity=0.13).encode(y=alt.Y("p5:Q", title="distance of unit vectors"), y2="p95:Q")
    middle = base.mark_area(opacity=0.28).encode(y="p25:Q", y2="p75:Q")
    median = base.mark_line(strokeWidth=2).encode(y="p50:Q")
    rules = [
        alt.Chart().mark_line(color=FAINT, strokeDash=[2, 3]).encode(x="snr:Q", y=f"{name}:Q")
        for name, _ in REFERENCES
        if name in rows[0]
    ]
    panel = alt.layer(whole, middle, median, *rules).properties(width=200, height=170)
    spaces = [name for name in (RAW, PREPARED, ENHANCED) if any(row["space"] == name for row in rows)]
    return panel.facet(
        column=alt.Column("space:N", sort=spaces, title=None),
        row=alt.Row("encoder:N", sort=list(findings), title=None),
        data=inline(rows),
    )


def gain_chart(findings: Mapping[str, Findings]) -> alt.HConcatChart | None:
    """Return a chart of both systems' EERs against the gap of the raw vectors, with a column for each encoder."""
    columns = []
    for encoder, each in findings.items():
        rows: list[CsvRow] = [
            {"gap": gap_bin.mean, "system": system, "eer": values[0], "low": values[1], "high": values[2]}
            for gap_bin in each.bins[RAW]
            for system, values in (("raw", gap_bin.raw), ("seed", gap_bin.seed))
        ]
        gains: list[CsvRow] = [
            {"gap": gap_bin.mean, "gain": gap_bin.gain[0], "low": gap_bin.gain[1], "high": gap_bin.gain[2]}
            for gap_bin in each.bins[RAW]
        ]
        base = alt.Chart(inline(rows)).encode(x=_gap_axis(), color=_system_colour())
        band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="EER, %"), y2="high:Q")
        line = base.mark_line(point=True, strokeWidth=2).encode(y="eer:Q")
        change = alt.Chart(inline(gains)).encode(x=_gap_axis())
        spread = change.mark_area(opacity=0.18, color=OTHERS[2])
        spread = spread.encode(y=alt.Y("low:Q", title="gain, points"), y2="high:Q")
        gain = change.mark_line(point=True, strokeWidth=2, color=OTHERS[2]).encode(y="gain:Q")
        zero = alt.Chart(inline([{"zero": 0.0}])).mark_rule(color=FAINT, strokeDash=[2, 3]).encode(y="zero:Q")
        upper = alt.layer(band, line).properties(width=330, height=200, title=encoder)
        lower = alt.layer(spread, zero, gain).properties(width=330, height=120)
        columns.append(alt.vconcat(upper, lower))
    return alt.hconcat(*columns, spacing=30) if columns else None


def stability_chart(findings: Mapping[str, Findings]) -> alt.HConcatChart | None:
    """Return charts of losses, gradients and EERs of the trainings against their SNR, one column each."""
    rows: list[CsvRow] = []
    for encoder, each in findings.items():
        for row in each.trainings:
            if "failed" in row:
                continue
            figures: dict[str, float | None] = {
                "loss left, share": row["best_loss"] / row["untrained_loss"],
                "greatest gradient": row.get("gradient_max"),
                "test EER, noisy, %": mean_noisy(row),
                "test EER, clean, %": row["test"][CLEAN],
            }
            rows += [
                {"encoder": encoder, "snr": row["snr"], "figure": name, "value": value}
                for name, value in figures.items()
                if value is not None
            ]
    if not rows:
        return None
    colour = alt.Color(
        "encoder:N", title=None, scale=alt.Scale(domain=list(findings), range=list(OTHERS[: len(findings)]))
    )
    panels = []
    for name in dict.fromkeys(str(row["figure"]) for row in rows):
        chosen = [row for row in rows if row["figure"] == name]
        base = alt.Chart(inline(chosen)).encode(x=alt.X("snr:Q", title="SNR of the training noise, dB"), color=colour)
        value = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False))
        dots = base.mark_point(filled=True, size=28, opacity=0.7).encode(y=value)
        line = base.mark_line(strokeWidth=1.5).encode(y=alt.Y("mean(value):Q", title=name))
        panels.append(alt.layer(line, dots).properties(width=190, height=190))
    return alt.hconcat(*panels, spacing=20)


def transfer_chart(findings: Mapping[str, Findings]) -> alt.FacetChart | None:
    """Return a chart of the reduction of every group, with a column for each condition and a row for each encoder."""
    groups = [TRAINED, HELD, SAME_SOUNDS, TEST]
    rows: list[CsvRow] = [
        {"encoder": encoder, "group": row.group, "condition": row.condition}
        | {"reduction": 100 * row.reduction[0], "low": 100 * row.reduction[1], "high": 100 * row.reduction[2]}
        for encoder, each in findings.items()
        for row in each.groups
        if row.group in groups and row.condition != CLEAN and np.isfinite(row.reduction).all()
    ]
    if len({row["group"] for row in rows}) < 2:
        return None
    conditions = list(dict.fromkeys(str(row["condition"]) for row in rows if row["condition"] != MEAN))
    colour = alt.Color("group:N", scale=alt.Scale(domain=groups, range=[BASELINE, *OTHERS[:3]]), legend=None)
    base = alt.Chart().encode(y=alt.Y("group:N", sort=groups, title=None, axis=alt.Axis(grid=False)), color=colour)
    line = base.mark_rule(strokeWidth=2, opacity=0.55).encode(x=alt.X("low:Q", title="EER reduction, %"), x2="high:Q")
    dot = base.mark_point(filled=True, size=60, opacity=1).encode(x="reduction:Q")
    zero = alt.Chart().mark_rule(color=FAINT, strokeDash=[2, 3]).encode(x=alt.datum(0))
    panel = alt.layer(zero, line, dot).properties(width=150, height=alt.Step(20))
    return panel.facet(
        column=alt.Column("condition:N", sort=[*conditions, MEAN], title=None),
        row=alt.Row("encoder:N", sort=list(findings), title=None),
        data=inline(rows),
    )


def _gap_axis() -> alt.X:
    return alt.X("gap:Q", title="gap of the test side")


def _space_colour() -> alt.Color:
    scale = alt.Scale(domain=[RAW, PREPARED, ENHANCED], range=[BASELINE, *OTHERS[:2]])
    return alt.Color("space:N", scale=scale, legend=None)


def _system_colour() -> alt.Color:
    scale = alt.Scale(domain=["raw", "seed"], range=[BASELINE, OTHERS[0]])
    return alt.Color("system:N", scale=scale, title=None, legend=alt.Legend(orient="top"))
