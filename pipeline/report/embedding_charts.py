"""Plots of embeddings and of training: distances, map, loss curves. They need the extra `plots`."""

import json
from collections.abc import Sequence

import altair as alt

from pipeline.report.results import CLEAN
from pipeline.report.series import CsvRow
from pipeline.report.style import OTHERS, Layers, colours, inline
from pipeline.scoring.distances import ITSELF, OTHER, SAME
from pipeline.utils.charts import FAINT

REFERENCES = {SAME: "clean: same speaker", OTHER: "clean: another speaker"}


def distance_chart(distances: Sequence[CsvRow], measured: Sequence[str]) -> alt.FacetChart | None:
    """Return a chart of quantiles of the cosine distance between clean and noisy vectors, one panel for each system.

    The measured systems have the same colours as in plots of error rates.
    """
    rows: list[CsvRow] = [
        row | {"to": row["condition"] if row["pair"] == ITSELF else REFERENCES[str(row["pair"])]}
        for row in distances
        if row["measure"] == "cosine" and row["pair"] in (ITSELF, *REFERENCES)
    ]
    if not rows:
        return None
    systems = list(dict.fromkeys(str(row["system"]) for row in rows))
    order = [name for name in dict.fromkeys(str(row["to"]) for row in rows) if name not in REFERENCES.values()]
    coloured = list(dict.fromkeys([*measured, *systems]))
    scale = alt.Scale(domain=coloured, range=colours(coloured))
    base = alt.Chart().encode(
        y=alt.Y("to:N", sort=[*order, *REFERENCES.values()], title=None, axis=alt.Axis(grid=False, domain=False)),
        color=alt.Color("system:N", scale=scale, legend=None),
        tooltip=["to:N", *(alt.Tooltip(f"p{percent}:Q", format=".3f") for percent in (5, 25, 50, 75, 95))],
    )
    whole = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("p5:Q", title="cosine distance"), x2="p95:Q")
    middle = base.mark_bar(height=8, cornerRadius=4, opacity=0.6).encode(x="p25:Q", x2="p75:Q")
    median = base.mark_point(filled=True, size=60, opacity=1).encode(x="p50:Q")
    panel = alt.layer(whole, middle, median).properties(width=max(180, 720 // len(systems)), height=alt.Step(22))
    return panel.facet(column=alt.Column("system:N", sort=systems, title=None), data=inline(rows))


def map_chart(points: Sequence[CsvRow]) -> alt.HConcatChart | None:
    """Return the map of utterances, one panel for each system: clean points, and lines to their noisy points."""
    if not points:
        return None
    noisy = [name for name in dict.fromkeys(str(row["condition"]) for row in points) if name != CLEAN]
    systems = list(dict.fromkeys(str(row["system"]) for row in points))
    side = min(440, max(240, 900 // len(systems) - 40))
    panels = [_map_panel([row for row in points if row["system"] == name], side, bool(noisy)) for name in systems]
    chart = alt.hconcat(*panels, spacing=30)
    if not noisy:
        return chart
    select = alt.binding_select(options=noisy, name="condition ")
    return chart.add_params(alt.param(name="shown", value=noisy[0], bind=select))


def _map_panel(points: Sequence[CsvRow], side: int, noisy: bool) -> Layers:
    """Return the map of one system."""
    clean = {row["utterance"]: row for row in points if row["condition"] == CLEAN}
    rows: list[CsvRow] = []
    for utterance, row in clean.items():
        friends = [other for other in clean.values() if other["speaker"] == row["speaker"]]
        centre = {axis: sum(float(other[axis]) for other in friends) / len(friends) for axis in ("x", "y")}
        rows.append(
            {"utterance": utterance, "speaker": row["speaker"], "x": row["x"], "y": row["y"]}
            | {"centre_x": centre["x"], "centre_y": centre["y"]}
        )
    moved: list[CsvRow] = [
        {name: row[name] for name in ("condition", "utterance", "speaker", "x", "y")}
        | {"from_x": clean[row["utterance"]]["x"], "from_y": clean[row["utterance"]]["y"]}
        for row in points
        if row["condition"] != CLEAN
    ]
    bare = alt.Axis(labels=False, ticks=False, grid=False, domainColor=FAINT)
    x = alt.X("x:Q", scale=_scale(points, "x"), axis=bare, title="principal axis 1")
    y = alt.Y("y:Q", scale=_scale(points, "y"), axis=bare, title="principal axis 2")
    colour = alt.Color("speaker:N", scale=alt.Scale(scheme="tableau20"), legend=None)
    tooltip = ["speaker:N", "utterance:N"]
    base = alt.Chart(inline(rows)).encode(x=x, y=y, color=colour, tooltip=tooltip)
    star = base.mark_rule(strokeWidth=1, opacity=0.7).encode(x2="centre_x:Q", y2="centre_y:Q")
    dots = base.mark_point(filled=True, size=45, opacity=1)
    layers: list[alt.Chart] = [star, dots]
    if noisy:
        away = (
            alt.Chart(inline(moved))
            .transform_filter("datum.condition == shown")
            .encode(x=x, y=y, color=colour, tooltip=tooltip)
        )
        lines = away.mark_rule(strokeWidth=1, strokeDash=[3, 2], opacity=0.55).encode(x2="from_x:Q", y2="from_y:Q")
        layers = [lines, star, away.mark_point(filled=False, size=40, strokeWidth=1.5, opacity=0.9), dots]
    name = str(points[0]["system"])
    text = alt.ExprRef(f"{json.dumps(name)} + ': clean and ' + shown") if noisy else name
    title = alt.Title(text, anchor="middle", fontSize=12)
    return alt.layer(*layers).properties(width=side, height=side, title=title)


def _scale(points: Sequence[CsvRow], axis: str) -> alt.Scale:
    """Return the scale of an axis of the map. Both axes have the same length, and hold the points of all conditions."""
    values = {name: [float(row[name]) for row in points] for name in ("x", "y")}
    span = 1.06 * max(max(own) - min(own) for own in values.values()) or 1.0
    middle = (max(values[axis]) + min(values[axis])) / 2
    return alt.Scale(domain=[middle - span / 2, middle + span / 2], nice=False, zero=False)


def training_chart(training: Sequence[CsvRow]) -> alt.FacetChart | None:
    """Return a chart of the losses of training and of held-out speakers by epoch, each with its own axis."""
    rows: list[CsvRow] = [
        {"loss": name, "epoch": row["epoch"], "value": row[key]}
        for key, name in (("train_loss", "training"), ("validation_loss", "held-out speakers"))
        for row in training
        if key in row
    ]
    if not rows:
        return None
    base = alt.Chart().encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
        y=alt.Y("value:Q", title="loss", scale=alt.Scale(zero=False)),
        tooltip=["loss:N", "epoch:Q", alt.Tooltip("value:Q", format=".5f")],
    )
    line = base.mark_line(color=OTHERS[0], strokeWidth=2)
    best = min((row for row in rows if row["loss"] != "training"), key=lambda row: float(row["value"]), default=None)
    layers: list[alt.Chart] = [line]
    if best:
        chosen = alt.datum.epoch == best["epoch"]
        dot = base.transform_filter(chosen & (alt.datum.loss == best["loss"]))
        layers.append(dot.mark_point(filled=True, size=70, color=OTHERS[1], opacity=1))
    panel = alt.layer(*layers).properties(width=360, height=200)
    column = alt.Column("loss:N", sort=["training", "held-out speakers"], title=None)
    chart: alt.FacetChart = panel.facet(column=column, data=inline(rows)).resolve_scale(y="independent")
    return chart
